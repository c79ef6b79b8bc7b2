"""Batch norms and biases are given back what quantization moves."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.models.correct import corrected_statistics
from keras_saq.quantizers import pass_through_scope

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")


def trained(model, statistics=True):
    """The model with statistics, and all else, that training could leave."""
    random = np.random.default_rng(0)
    for layer in model._flatten_layers():
        for variable in layer._trainable_variables:
            if variable.name in ("gamma",):
                variable.assign(random.uniform(0.5, 1.5, variable.shape))
            if variable.name in ("beta", "bias"):
                variable.assign(random.normal(0, 0.3, variable.shape))
        if isinstance(layer, layers.BatchNormalization) and statistics:
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(random.normal(0, 0.2, shape))
            layer.moving_variance.assign(random.uniform(0.2, 2, shape))
    return model


def conv_norm():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm2", scale=False)(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return trained(keras.Model(inputs, layers.Dense(4, name="head")(x)))


def biased(activation="relu"):
    return trained(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(8, 3, activation=activation, name="conv"),
                layers.SeparableConv2D(6, 3, activation="relu", name="sep"),
                layers.Flatten(),
                layers.Dense(5, name="head"),
            ]
        )
    )


def moments_before(model, name, x, float_values=False):
    """Moments of what a batch norm reads, in NumPy."""
    seen = []
    layer = model.get_layer(name)
    call = layer.call
    layer.__dict__["call"] = lambda inputs, *args, **kwargs: (
        seen.append(keras.ops.convert_to_numpy(inputs)),
        call(inputs, *args, **kwargs),
    )[1]
    try:
        with pass_through_scope(float_values):
            model(x, training=False)
    finally:
        del layer.__dict__["call"]
    values = seen[0].astype("float64")
    return values.mean((0, 1, 2)), values.var((0, 1, 2))


def test_statistics_against_numpy():
    model = conv_norm()
    before = keras_saq.quantize_model(model, "w3a8", calibration=X)
    for name in ("norm", "norm2"):
        old, new = model.get_layer(name), before.get_layer(name)
        mean, variance = (
            keras.ops.convert_to_numpy(v).astype("float64")
            for v in (old.moving_mean, old.moving_variance)
        )
        mean_f, var_f = moments_before(model, name, X)
        mean_q, var_q = moments_before(before, name, X)
        # The formula, written anew.
        extra = (variance + old.epsilon) / 100
        k = np.sqrt((var_q + extra) / (var_f + extra))
        np.testing.assert_allclose(
            new.moving_mean, mean_q - (mean_f - mean) * k, atol=2e-3
        )
        np.testing.assert_allclose(
            new.moving_variance,
            (variance + old.epsilon) * k**2 - old.epsilon,
            rtol=1e-2,
        )


def output_gap(model, q):
    """How far the mean of each output is from that in float."""
    made = [np.asarray(m(X)).mean(0) for m in (model, q)]
    return np.abs(made[0] - made[1]).max()


@pytest.mark.filterwarnings("ignore:.* stay in float")
@pytest.mark.parametrize("make", [conv_norm, biased, lambda: biased("gelu")])
@pytest.mark.parametrize("bits", ["w3a8", "w3"])
def test_the_mean_output_is_that_in_float(make, bits):
    model = make()
    plain = keras_saq.quantize_model(model, bits, calibration=X, correct=False)
    q = keras_saq.quantize_model(model, bits, calibration=X)
    assert output_gap(model, q) < 0.5 * output_gap(model, plain)


def test_kernels_and_all_else_stay():
    model = conv_norm()
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    for name in ("conv", "depthwise", "head"):
        np.testing.assert_array_equal(
            q.get_layer(name).kernel, model.get_layer(name).kernel
        )
    for name in ("norm", "norm2"):
        np.testing.assert_array_equal(
            q.get_layer(name).beta, model.get_layer(name).beta
        )
    # A bias in front of a batch norm has nothing to do.
    np.testing.assert_array_equal(
        q.get_layer("depthwise").bias, model.get_layer("depthwise").bias
    )


def test_switched_off():
    model = conv_norm()
    q = keras_saq.quantize_model(model, "w3a8", calibration=X, correct=False)
    np.testing.assert_array_equal(
        q.get_layer("norm").moving_mean, model.get_layer("norm").moving_mean
    )


def test_frozen_layers_are_calibrated_too():
    model = conv_norm()
    model.get_layer("norm").trainable = False
    q = keras_saq.quantize_model(model, "w3a8", calibration=X)
    assert not q.get_layer("norm").trainable
    assert not np.array_equal(
        q.get_layer("norm").moving_mean, model.get_layer("norm").moving_mean
    )


def test_statistics_of_nobody_and_shared_layers_stay():
    norm = layers.BatchNormalization(name="norm")
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    x = shared(layers.ReLU()(shared(inputs)))
    model = trained(keras.Model(inputs, norm(x)), statistics=False)
    x = RANDOM.normal(size=(16, 3)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    np.testing.assert_array_equal(
        q.get_layer("shared").bias, model.get_layer("shared").bias
    )
    assert not np.asarray(q.get_layer("norm").moving_mean).any()


@keras.saving.register_keras_serializable("test_correct")
class Block(layers.Layer):
    """A composite with a batch norm and a bias inside."""

    def build(self, input_shape):
        self.conv = layers.Conv2D(4, 1, use_bias=False)
        self.norm = layers.BatchNormalization(name="norm")
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], 4))

    def call(self, x, training=None):
        return keras.ops.relu(self.norm(self.conv(x), training=training))


def test_inside_of_a_composite():
    inputs = keras.Input((8, 8, 3))
    x = Block(name="block")(inputs)
    model = trained(keras.Model(inputs, layers.Flatten()(x)))
    q = keras_saq.quantize_model(model, "w3a8", calibration=X)
    assert not np.array_equal(
        q.get_layer("block").norm.moving_mean,
        model.get_layer("block").norm.moving_mean,
    )
    for layer in q._flatten_layers():
        assert "call" not in layer.__dict__


def test_a_quiet_channel_is_left_alone():
    mean, variance = corrected_statistics(
        np.float32([1.0, 1.0]),
        np.float32([1.0, 1.0]),
        1e-3,
        (np.float32([0.0, 0.0]), np.float32([1e-9, 1.0])),
        (np.float32([0.0, 0.0]), np.float32([1e-8, 100.0])),
    )
    np.testing.assert_allclose(mean, [1.0, 4.0], rtol=1e-4)
    np.testing.assert_allclose(variance, [1.0, 16.0], rtol=2e-2)


def test_calibrate_corrects_once():
    model = conv_norm()
    q = keras_saq.quantize_model(model, "w3a8")
    keras_saq.calibrate(q, X)
    once = np.array(q.get_layer("norm").moving_mean)
    assert not np.array_equal(once, model.get_layer("norm").moving_mean)
    keras_saq.calibrate(q, X)
    np.testing.assert_array_equal(once, q.get_layer("norm").moving_mean)
