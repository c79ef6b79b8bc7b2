"""Sliding windows in NumPy against TensorFlow's kernels."""

import numpy as np
import pytest
import tensorflow as tf

from keras_saq.export.kernels import windows

rng = np.random.default_rng(0)


def integers(*shape):
    return rng.integers(-100, 100, shape).astype(np.float32)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize(
    "strides, dilation", [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2))]
)
def test_convolutions(kernel, strides, dilation, padding):
    x = integers(2, 9, 12, 6)
    weights = integers(*kernel, 6, 4)
    made = windows.conv(x, weights, strides, padding, dilation)
    expected = tf.nn.conv2d(x, weights, strides, padding, dilations=dilation)
    np.testing.assert_array_equal(made, expected)
    made = windows.depthwise(x, weights, strides, padding, dilation)
    expected = tf.nn.depthwise_conv2d(
        x, weights, (1, *strides, 1), padding, dilations=dilation
    )
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4)])
def test_transposed_convolutions(kernel, strides, padding):
    shape = (2, 11, 12, 4)
    weights = integers(*kernel, 4, 5)
    forward = tf.nn.conv2d(integers(*shape), weights, strides, padding)
    x = integers(*forward.shape)
    expected = tf.nn.conv2d_transpose(x, weights, shape, strides, padding)
    made = windows.transpose_conv(x, weights, shape[1:3], strides, padding)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    "window, strides", [((2, 2), (2, 2)), ((3, 2), (1, 3))]
)
def test_pools(window, strides, padding):
    x = rng.integers(-128, 128, (2, 9, 10, 3)).astype(np.int8)
    made = windows.max_pool(x, window, strides, padding)
    expected = tf.nn.max_pool2d(x.astype("float32"), window, strides, padding)
    np.testing.assert_array_equal(made, expected)
    assert made.dtype == np.int8
