"""Convolutions of every rank, transposed, separable, dilated and grouped."""

import keras
import numpy as np

import keras_saq
from tests.layers.base import Base

layers = keras.layers


class TestConv1D(Base):
    shape = (8, 4)

    def layer(self):
        return layers.Conv1D(6, 3, groups=2, padding="causal")


class TestConv3D(Base):
    shape = (4, 4, 4, 2)

    def layer(self):
        return layers.Conv3D(3, 2, activation="relu")


class TestDilatedConv2D(Base):
    def layer(self):
        return layers.Conv2D(5, 3, dilation_rate=2)


class TestConv1DTranspose(Base):
    shape = (6, 4)

    def layer(self):
        return layers.Conv1DTranspose(3, 3, strides=2)


class TestConv2DTranspose(Base):
    def layer(self):
        return layers.Conv2DTranspose(5, 3, strides=2, padding="same")


class TestConv2DTransposeWithBatchNorm(Base):
    def layer(self):
        return layers.Conv2DTranspose(5, 2)

    def call(self, layer, x):
        return layers.ReLU()(layers.BatchNormalization()(layer(x)))


class TestConv3DTranspose(Base):
    shape = (3, 3, 3, 2)

    def layer(self):
        return layers.Conv3DTranspose(3, 2)


class TestDepthwiseConv1D(Base):
    shape = (8, 4)

    def layer(self):
        return layers.DepthwiseConv1D(3, depth_multiplier=2)


class TestSeparableConv1D(Base):
    shape = (8, 4)

    def layer(self):
        return layers.SeparableConv1D(5, 3)


class TestSeparableConv2D(Base):
    def layer(self):
        return layers.SeparableConv2D(5, 3, activation="relu")


class TestSeparableConv2DWithBatchNorm(Base):
    def layer(self):
        return layers.SeparableConv2D(5, 3, use_bias=False)

    def call(self, layer, x):
        return layers.ReLU()(layers.BatchNormalization()(layer(x)))


def test_separable_convolution_is_that_of_keras():
    inputs = keras.Input((6, 6, 4))
    layer = layers.SeparableConv2D(
        5, 3, strides=2, padding="same", depth_multiplier=2, activation="tanh"
    )
    model = keras.Model(inputs, layer(inputs))
    layer.bias.assign(np.linspace(-1, 1, 5))
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    # Eight bits for everything, and no activation: only the two steps.
    q = keras_saq.quantize_model(model, "w8")
    stripped = keras_saq.strip(q)
    np.testing.assert_allclose(
        q.predict(x, verbose=0), stripped.predict(x, verbose=0), atol=1e-5
    )


def test_the_tensor_between_the_two_steps_is_quantized():
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, layers.SeparableConv2D(5, 3)(inputs))
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    layer = q.layers[-1]
    assert layer.inner_quantizer.calibrated
    assert layer.inner_quantizer.qmin < 0
    # The bias counts in steps of that tensor and of the pointwise kernel.
    pointwise = layer.weight_quantizer("pointwise_kernel")
    np.testing.assert_allclose(
        layer.accumulator_step(),
        layer.inner_quantizer.scale * pointwise.scale,
        rtol=1e-6,
    )
