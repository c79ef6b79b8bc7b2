"""Each layer type that can be quantized passes the tests of `Base`."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import PerturbationScope
from tests.layers.base import Base

layers = keras.layers


class TestConv2D(Base):
    def layer(self):
        return layers.Conv2D(5, 3, strides=2, padding="same")


class TestGroupedConv2D(Base):
    def layer(self):
        return layers.Conv2D(8, 3, groups=2, activation="relu")


class TestConv2DWithBatchNorm(Base):
    def layer(self):
        return layers.Conv2D(5, 3)

    def call(self, layer, x):
        x = layers.BatchNormalization()(layer(x))
        return layers.ReLU(6)(x)


class TestDepthwiseConv2D(Base):
    def layer(self):
        return layers.DepthwiseConv2D(3, depth_multiplier=2)


class TestDense(Base):
    def layer(self):
        return layers.Dense(7)


class TestBatchNormalization(Base):
    def layer(self):
        return layers.BatchNormalization()


class TestReLU(Base):
    def layer(self):
        return layers.ReLU()

    def call(self, layer, x):
        return layer(layers.Dense(4)(x))


class TestAdd(Base):
    def layer(self):
        return layers.Add()

    def call(self, layer, x):
        return layer([layers.Dense(4)(x), x])


class TestConcatenate(Base):
    def layer(self):
        return layers.Concatenate()

    def call(self, layer, x):
        return layer([layers.Dense(4)(x), x])


class TestAveragePooling2D(Base):
    def layer(self):
        return layers.AveragePooling2D(2)


class TestGlobalAveragePooling2D(Base):
    def layer(self):
        return layers.GlobalAveragePooling2D()


class TestMaxPooling2D(Base):
    def layer(self):
        return layers.MaxPooling2D()


class TestZeroPadding2D(Base):
    def layer(self):
        return layers.ZeroPadding2D()


@pytest.mark.filterwarnings("ignore:.*stay in float")
class TestSoftmaxHead(Base):
    """An activation that stays in float behind quantized logits."""

    def layer(self):
        return layers.Dense(5, activation="softmax")


def dense_model():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(inputs))


def test_latent_weights_are_not_the_quantized_ones():
    model = dense_model()
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4) - 0.5)
    latent = q.layers[-1].kernel.numpy()
    np.testing.assert_array_equal(latent, model.layers[-1].kernel.numpy())
    layer = q.layers[-1]
    quantized = keras.ops.convert_to_numpy(layer.kernel_quantizer(latent))
    assert np.any(quantized != latent)


def test_a_perturbation_is_added_after_quantization_and_ends_with_its_scope():
    model = keras_saq.quantize_model(
        dense_model(), "w4a8", calibration=np.eye(4) - 0.5
    )
    layer = model.layers[-1]
    layer.output_quantizer.set_scale(1e-6)
    x = np.eye(4, dtype="float32")
    eps = np.full((4, 3), 0.25, "float32")
    clean = keras.ops.convert_to_numpy(layer.kernel_quantizer(layer.kernel))
    with PerturbationScope({id(layer.kernel): eps}):
        values = dict((id(v), t) for v, t in layer.overlaid_values())
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(values[id(layer.kernel)]), clean + eps
        )
    before = model(x)
    with pytest.raises(RuntimeError, match="inside"):
        with PerturbationScope({id(layer.kernel): eps}):
            raise RuntimeError("inside")
    np.testing.assert_array_equal(model(x), before)


def test_bias_is_on_the_grid_of_the_accumulator():
    model = dense_model()
    model.layers[-1].bias.assign([0.1234, -0.5, 3.0])
    q = keras_saq.quantize_model(
        model, "w2a8", calibration=np.eye(4) - 0.5, correct=False
    )
    layer = q.layers[-1]
    step = layer.input_scale() * layer.kernel_quantizer.scale
    (_, kernel), (variable, bias) = layer.overlaid_values()
    assert variable is layer.bias
    codes = keras.ops.convert_to_numpy(bias / step)
    np.testing.assert_allclose(codes, np.rint(codes), rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), model.layers[-1].bias)


def test_batch_norm_rounds_its_offset_and_keeps_its_statistics():
    """Against NumPy: y = a * (z + g * round(b / g)), batch statistics."""
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(momentum=0.9)(x))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 5, 2)).astype("float32")
    q = keras_saq.quantize_model(model, "w2a8", calibration=x)
    conv, norm = q.layers[1:]
    norm.gamma.assign([0.5, -1.5, 1.0])
    norm.beta.assign([0.3, 0.7, -0.2])
    norm.output_quantizer.set_scale(1e-7)  # looked at before this quantizer
    z = keras.ops.convert_to_numpy(conv(x))
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    slope = norm.gamma.numpy() / np.sqrt(var + norm.epsilon)
    b = norm.beta.numpy() / slope - mean
    g = keras.ops.convert_to_numpy(
        conv.input_scale() * conv.kernel_quantizer.scale
    )
    expected = slope * (z + g * np.rint(b / g))
    from keras_saq.layers.batch_normalization import call_on_bias_grid

    y = keras.ops.convert_to_numpy(call_on_bias_grid(norm, z, training=True))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(
        norm.moving_variance.numpy(), 0.9 + 0.1 * var, rtol=1e-5
    )
    mean, var = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    slope = norm.gamma.numpy() / np.sqrt(var + norm.epsilon)
    b = norm.beta.numpy() / slope - mean
    expected = slope * (z + g * np.rint(b / g))
    y = keras.ops.convert_to_numpy(call_on_bias_grid(norm, z, training=False))
    np.testing.assert_allclose(y, expected, atol=1e-5)


def _relu_model(activation):
    inputs = keras.Input((6,))
    x = layers.Dense(4)(inputs)
    x = activation(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    return keras_saq.quantize_model(model, "w4a4", calibration=x).layers[2], x


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_relu_then_quantizer_is_both_in_turn(activation):
    layer, _ = _relu_model(layers.Activation(activation))
    x = np.random.default_rng(1).normal(size=(32, 4)).astype("float32") * 5
    expected = layer.output_quantizer(keras.activations.get(activation)(x))
    np.testing.assert_array_equal(layer(x), expected)


def test_relu_before_an_unsigned_quantizer_is_not_computed():
    calls = []

    def float_call(layer, x):
        calls.append(layer)
        return layer.activation(x)

    for activation in ("relu", "relu6"):
        layer, _ = _relu_model(layers.Activation(activation))
        layer._quantized_call(float_call, keras.ops.ones((2, 4)))
    assert calls == [layer]  # that of relu6
