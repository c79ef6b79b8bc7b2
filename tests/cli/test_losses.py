"""The loss that is chosen from labels and outputs."""

import keras
import numpy as np
import pytest

from keras_saq import SAQModel
from keras_saq import quantize_model
from keras_saq.cli import activations
from keras_saq.cli import losses
from keras_saq.data import Samples
from tests.cli.commands import network

layers = keras.layers


def model_ending_in(*end, outputs=4):
    inputs = keras.Input((6,))
    x = layers.Dense(outputs)(layers.Dense(5, activation="relu")(inputs))
    for layer in end:
        x = layer(x)
    return keras.Model(inputs, x)


def nested():
    inside = model_ending_in(layers.Softmax())
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dropout(0.1)(inside(inputs)))


class Own(keras.Model):
    """A class of its own, with its head as the last layer."""

    def __init__(self, activation):
        super().__init__()
        self.first = layers.Dense(5, activation="relu")
        self.head = layers.Dense(4, activation=activation)

    def call(self, inputs):
        return self.head(self.first(inputs))


class Gated(keras.Model):
    """Attention and a gate on the way; logits, but the head comes first."""

    def __init__(self, end=None):
        super().__init__()
        self.head = layers.Dense(4)
        self.end = end
        self.gate = layers.Dense(5, activation="sigmoid")
        self.attention = layers.MultiHeadAttention(1, 2)
        self.pool = layers.GlobalAveragePooling1D()

    def call(self, inputs):
        x = self.gate(inputs)[:, None]
        x = self.head(self.pool(self.attention(x, x)))
        return x if self.end is None else self.end(x)


class Block(layers.Layer):
    """A layer of its own that holds a model of its own."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def call(self, inputs):
        return self.inside(inputs)


class Opaque(Own):
    """What no symbolic tensor goes through."""

    def call(self, inputs):
        if isinstance(inputs, keras.KerasTensor):
            raise TypeError("needs numbers")
        return super().call(inputs)


def built(model):
    model(np.zeros((1, 6), "float32"))
    return model


def samples(y):
    return Samples(np.zeros((len(y), 6), "float32"), np.asarray(y), "rows")


LABELS = samples(np.arange(8) % 4)


@pytest.mark.parametrize(
    "make, activation",
    [
        (lambda: model_ending_in(), ""),
        (lambda: model_ending_in(layers.Softmax()), "softmax"),
        (lambda: model_ending_in(layers.Activation("softmax")), "softmax"),
        (
            lambda: model_ending_in(
                layers.Dense(4, activation="softmax"),
                layers.Activation("linear", dtype="float32"),
            ),
            "softmax",
        ),
        (nested, "softmax"),
        (lambda: built(Own("softmax")), "softmax"),
        (lambda: network(4, "softmax"), "softmax"),
        (lambda: built(Gated()), ""),
        (lambda: built(Gated(layers.Softmax())), "softmax"),
        (lambda: built(Gated(keras.ops.sigmoid)), "sigmoid"),
        (lambda: model_ending_in(Block(Own("softmax"))), "softmax"),
        (lambda: model_ending_in(Block(Gated())), ""),
        (lambda: built(Opaque("softmax")), "softmax"),
        (lambda: built(Opaque(None)), ""),
    ],
)
def test_activation_of_the_outputs(make, activation):
    assert activations.last_activation(make()) == activation


def test_quantized_and_wrapped_models_end_as_the_float_one():
    model = model_ending_in(layers.Dense(4, activation="softmax"))
    quantized = quantize_model(model, "w4a8", calibration=np.eye(6))
    assert activations.last_activation(quantized) == "softmax"
    assert activations.last_activation(SAQModel(quantized)) == "softmax"
    objective = losses.choose(quantized, LABELS)
    assert not objective.from_logits
    assert "probabilities of softmax" in objective.reason


@pytest.mark.parametrize(
    "y, outputs, loss, num_classes",
    [
        (np.arange(8) % 4, 4, keras.losses.SparseCategoricalCrossentropy, 4),
        (np.eye(4), 4, keras.losses.CategoricalCrossentropy, 4),
        (np.eye(4, dtype=int), 4, keras.losses.CategoricalCrossentropy, 4),
        (np.full((4, 4), 0.25), 4, keras.losses.CategoricalCrossentropy, 4),
        (np.arange(8) % 2, 1, keras.losses.BinaryCrossentropy, 2),
        (np.linspace(0, 1, 8), 1, keras.losses.MeanSquaredError, 0),
        (np.ones((8, 4)), 4, keras.losses.MeanSquaredError, 0),
    ],
)
def test_losses(y, outputs, loss, num_classes):
    model = model_ending_in(outputs=outputs)
    objective = losses.choose(model, samples(y))
    assert type(objective.loss) is loss
    assert objective.num_classes == num_classes
    assert objective.larger_is_better == (objective.metric == "accuracy")
    predicted = np.zeros((len(y), outputs), "float32")
    assert np.isfinite(float(objective.loss(y, predicted)))


@pytest.mark.parametrize(
    "y, kind, message",
    [
        (np.arange(8), "auto", "from 0 to 3: the model has 4 classes"),
        (np.arange(8) - 4, "auto", "Received labels from -4 to 3"),
        (np.zeros((8, 2), int), "auto", "do not fit outputs"),
        (np.zeros((8, 2)), "auto", "do not fit outputs"),
        (np.arange(8) % 4, "mse", "do not fit outputs"),
        (np.full(8, 0.5), "classes", "need integer labels"),
    ],
)
def test_labels_that_do_not_fit(y, kind, message):
    with pytest.raises(ValueError, match=message):
        losses.choose(model_ending_in(), samples(y), kind)


def test_several_outputs_are_for_python():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [layers.Dense(2)(inputs), inputs])
    with pytest.raises(ValueError, match="has 2 outputs"):
        losses.choose(model, LABELS)
    assert losses.choose(built(Own(None)), LABELS).num_classes == 4


def test_a_class_is_not_changed_by_being_asked():
    model = built(Gated())
    nodes = [len(x._inbound_nodes) for x in model._flatten_layers()]
    assert losses.choose(model, LABELS).from_logits
    assert nodes == [len(x._inbound_nodes) for x in model._flatten_layers()]


@pytest.mark.parametrize("y", [np.arange(8) % 4, np.eye(4)])
def test_classes_that_end_in_sigmoid_are_probabilities(y):
    model = model_ending_in(layers.Activation("sigmoid"))
    objective = losses.choose(model, samples(y))
    assert not objective.from_logits and not objective.loss.from_logits
    assert "probabilities of sigmoid" in objective.reason


def test_whole_floats_are_classes_if_asked_for():
    y = samples((np.arange(8) % 4).astype("float32"))
    objective = losses.choose(model_ending_in(), y, "classes")
    assert objective.num_classes == 4
    assert np.isfinite(float(objective.loss(y.y, np.zeros((8, 4)))))


@pytest.mark.parametrize("activation, middle", [(None, 0), ("sigmoid", 0.5)])
def test_accuracy_of_one_output(activation, middle):
    model = model_ending_in(layers.Activation(activation), outputs=1)
    y = np.arange(8) % 2
    objective = losses.choose(model, samples(y))
    metric = objective.make_metric()
    # Each on its side of the middle by a little.
    metric.update_state(y, (middle + (y - 0.5) * 0.2)[:, None])
    assert float(metric.result()) == 1 and metric.name == "accuracy"


@pytest.mark.parametrize(
    "y, other, message",
    [
        (np.arange(8) % 4, np.full(8, -1), "--test-split` do not fit.* -1"),
        (np.arange(8) % 4, np.full(8, 0.5), "need integer"),
        (np.eye(4), np.zeros((3, 4)), "a probability for each of 4"),
    ],
)
def test_labels_of_a_test(y, other, message):
    objective = losses.choose(model_ending_in(), samples(y))
    losses.check_labels(objective, samples(y), "--test-split")
    with pytest.raises(ValueError, match=message):
        losses.check_labels(objective, samples(other), "--test-split")


def test_teachers():
    probable = model_ending_in(layers.Softmax())
    logits, one = model_ending_in(), model_ending_in(outputs=1)
    objective = losses.choose(logits, LABELS)
    losses.require_same_kind(logits, logits, LABELS, objective)
    with pytest.raises(ValueError, match="softmax probabilities"):
        losses.require_same_kind(logits, probable, LABELS, objective)
    for y in (samples(np.arange(8) % 2), samples(np.linspace(0, 1, 8))):
        with pytest.raises(ValueError, match="is for classes"):
            losses.require_same_kind(one, one, y, losses.choose(one, y))
