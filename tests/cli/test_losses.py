"""The loss that is chosen from labels and outputs."""

import keras
import numpy as np
import pytest

from keras_saq import SAQModel
from keras_saq import quantize_model
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
    ],
)
def test_activation_of_the_outputs(make, activation):
    assert losses.last_activation(make()) == activation


def test_quantized_and_wrapped_models_end_as_the_float_one():
    model = model_ending_in(layers.Dense(4, activation="softmax"))
    quantized = quantize_model(model, "w4a8", calibration=np.eye(6))
    assert losses.last_activation(quantized) == "softmax"
    assert losses.last_activation(SAQModel(quantized)) == "softmax"
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
        (np.zeros(8), "classes", "need integer labels"),
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
