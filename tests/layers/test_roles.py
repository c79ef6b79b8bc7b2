import keras
import numpy as np
import pytest
from keras import ops

import keras_saq
from keras_saq.layers import quantized_class
from keras_saq.layers import roles
from keras_saq.layers.operation import OperationLayer
from tests import operations

layers = keras.layers


def role_of(name):
    """The role of a row, and the outputs of its example for data."""
    function, shape = operations.of(name)
    if not name.startswith("ops."):
        dtype = "int32" if name.endswith("Embedding") else "float32"
        outputs = function(keras.Input(shape, dtype=dtype))
        return roles.find(outputs._keras_history.operation), function, shape
    return roles.OPERATIONS[name.removeprefix("ops.")], function, shape


def test_each_operation_is_one_of_keras():
    def names(operation_class):
        for subclass in operation_class.__subclasses__():
            yield subclass.__name__
            yield from names(subclass)

    assert set(roles.OPERATIONS) <= set(names(keras.Operation))


@pytest.mark.parametrize("name", list(roles.OPERATIONS))
def test_an_example_is_of_its_row(name):
    function, shape = operations.of(f"ops.{name}")
    outputs = function(keras.Input(shape))
    operation = outputs._keras_history.operation
    assert roles.find(operation) is roles.OPERATIONS[type(operation).__name__]
    wrapped = OperationLayer(operation)
    assert roles.unwrap(wrapped) is operation
    assert roles.find(wrapped) is roles.find(operation)


@pytest.mark.parametrize("name", operations.ROWS)
def test_what_a_row_says_of_grid_and_sign_is_true(name):
    role, function, shape = role_of(name)
    if role.reads_indices:
        return
    x = operations.numbers(shape, 3.0)
    # `predict`, which is inference; a call of augmentation alone is training.
    inputs = keras.Input(shape)
    x = x[:1]
    y = keras.Model(inputs, function(inputs)).predict(x, verbose=0)
    if role.family == "identity":
        np.testing.assert_array_equal(y, x)
    if role.keeps_grid:
        assert np.isin(y, [*x.ravel(), 0.0]).all()
    if role.unsigned == roles.ALWAYS:
        assert (y >= 0).all()
    elif role.unsigned == roles.AS_INPUTS:
        y = keras.Model(inputs, function(inputs)).predict(abs(x), verbose=0)
        assert (y >= 0).all()


@pytest.mark.parametrize(
    "name",
    [
        c.__name__
        for c, row in roles.LAYERS.items()
        if getattr(row, "family", "") == "identity"
    ],
)
def test_nothing_at_inference(name):
    """On numbers that no image has, and of a dtype that it has."""
    function, shape = operations.make(name)
    x = operations.numbers(shape)
    np.testing.assert_array_equal(function(x, training=False), x)


@pytest.mark.parametrize(
    "layer",
    [
        layers.CenterCrop(2, 2),
        layers.Equalization(),
        layers.RandomCrop(2, 2),
        layers.Resizing(2, 2),
        layers.Solarization(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_image_layers_that_do_something_have_no_role(layer):
    assert roles.find(layer) is None


def test_masking_sees_numbers_before_they_are_rounded():
    """A step of small numbers is no padding."""
    x = np.zeros((4, 5, 3), "float32")
    x[:, :3] = np.random.default_rng(0).normal(size=(4, 3, 3))
    x[:, 2] *= 1e-4
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.Masking(), layers.LSTM(2), layers.Dense(1)]
    )
    with pytest.warns(UserWarning, match="stay in float"):
        q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    mask = ops.convert_to_numpy(q.layers[-3].compute_mask(x))
    np.testing.assert_array_equal(mask, [[True] * 3 + [False] * 2] * 4)
    assert q.layers[-3].input_quantizer is None
    assert q.layers[-3].output_quantizer is not None


# --- Subclasses


class Renamed(layers.Dense):
    """What it computes is what Dense does."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.note = "mine"

    def get_config(self):
        return super().get_config()

    def helper(self):
        return self.note


class OwnCall(layers.Dense):
    def call(self, inputs, training=None):
        return super().call(inputs) * 2.0


class Doubled:
    def call(self, inputs, training=None):
        return super().call(inputs) * 2.0


class Mixed(Doubled, layers.BatchNormalization):
    """A normalization by name only."""


class Standardized(layers.Conv2D):
    """As Keras proposes: `call` is the parent's."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel))


class Difference(layers.Add):
    def _merge_function(self, inputs):
        return inputs[0] - inputs[1]


class AlwaysFlipped(layers.RandomFlip):
    def transform_images(self, images, transformation, training=True):
        return ops.flip(images, 2)


class Halved(layers.Dense):
    @property
    def kernel(self):
        return self._kernel / 2.0


@pytest.mark.parametrize(
    "layer",
    [
        OwnCall(2),
        Mixed(),
        Standardized(2, 2),
        Difference(),
        AlwaysFlipped(),
        Halved(2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_subclass_that_computes_something_else_is_somebodys_own(layer):
    assert roles.family(layer) in (None, "own_kernel")
    assert not roles.accumulates(layer)
    assert roles.is_weighted(layer) == isinstance(
        layer, (layers.Dense, layers.Conv2D)
    )
    assert roles.unsigned(layer) == "never"
    own = roles.of_class(quantized_class(type(layer)))
    assert (own and own.family) == roles.family(layer)


def test_a_subclass_that_computes_the_same_is_its_parent():
    for layer_class in (Renamed, quantized_class(Renamed)):
        assert roles.of_class(layer_class) is roles.of_class(layers.Dense)
    assert roles.of_class(quantized_class(layers.Conv2D)).family == "conv"
    assert roles.family(Renamed(3)) == "dense"


def test_an_operation_of_another_library_is_not_that_of_keras():
    class Add(keras.Operation):
        def call(self, x, y):
            return x - y

    assert roles.find(Add()) is None


# --- Questions


def test_activations():
    def of(layer):
        return roles.family(layer), roles.activation_of(layer)

    assert of(layers.ReLU()) == of(layers.Activation("relu"))
    assert of(layers.ReLU(6)) == ("relu", "relu6")
    assert of(layers.ReLU(4.0)) == ("function", "other")
    assert of(layers.ReLU(negative_slope=0.1)) == ("function", "other")
    assert of(layers.Activation("linear")) == ("identity", "linear")
    assert of(layers.Activation("tanh")) == ("function", "other")
    assert of(layers.Dense(2, activation="relu")) == ("dense", "relu")
    assert of(layers.LSTM(2)) == ("lstm", "linear")
    assert roles.unsigned(layers.ReLU(negative_slope=0.1)) == "never"
    assert roles.unsigned(layers.Dense(2, activation="sigmoid")) == "always"
    assert roles.unsigned(layers.Activation("linear")) == "as inputs"
    assert roles.unsigned(layers.Activation("sigmoid")) == "always"
    # Its gates are not its output.
    assert roles.unsigned(layers.LSTM(2, activation="sigmoid")) == "never"


def test_channels():
    axes = roles.weight_axes
    assert axes(layers.Conv2D(2, 3)) == {"kernel": (-1,)}
    assert axes(layers.Conv2DTranspose(2, 3)) == {"kernel": (-2,)}
    assert axes(layers.DepthwiseConv1D(3)) == {"kernel": (-2, -1)}
    assert axes(layers.EinsumDense("abc,cde->abde", (None, 2, 2))) == {
        "kernel": (-2, -1)
    }
    recurrent = {"cell.kernel": (-1,), "cell.recurrent_kernel": (-1,)}
    assert axes(layers.GRU(2)) == recurrent
    assert axes(layers.RNN(layers.LSTMCell(2))) == recurrent
    assert axes(layers.ConvLSTM1D(2, 2)) == recurrent
    assert axes(layers.TimeDistributed(Renamed(2))) == {"layer.kernel": (-1,)}
    own = axes(layers.TimeDistributed(OwnCall(2)))
    assert own == {"layer.kernel": (-1,)}
    assert axes(layers.RNN(layers.StackedRNNCells([layers.LSTMCell(2)]))) == {}
