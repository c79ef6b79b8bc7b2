"""Averages and maxima over an image or a sequence."""

import numpy as np

from keras_saq.export.kernels import windows
from keras_saq.export.kernels.kernel import INT8_MAX
from keras_saq.export.kernels.kernel import INT8_MIN
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.weighted import set_window


def _axes(op):
    """The axes of an average: all but batch and channels, if not said."""
    return op.options.get("axes", tuple(range(1, len(op.inputs[0].shape))))


def _mean(op, x):
    """XNNPACK's mean: float32, with both zero points inside the rounding.

    Found by comparing candidates with the kernel on sums that lie within a
    few float32 ulps of a rounding tie, which is where they differ.
    """
    (source,) = op.inputs
    axes, keep_dims = _axes(op), op.options["keep_dims"]
    total = x.astype(np.int64).sum(axis=axes, keepdims=keep_dims)
    count = np.float32(np.prod([x.shape[axis] for axis in axes]))
    ratio = np.float32(source.scale) / np.float32(op.output.scale)
    scale = ratio * (np.float32(1.0) / count)
    bias = (
        np.float32(op.output.zero_point)
        - (count * np.float32(source.zero_point)) * scale
    )
    codes = np.rint(total.astype(np.float32) * scale + bias)
    return np.clip(codes, INT8_MIN, INT8_MAX).astype(np.int8)


def _float_mean(op, x):
    return x.mean(
        axis=_axes(op), keepdims=op.options["keep_dims"], dtype=np.float32
    )


def _float_average_pool(op, x):
    import tensorflow as tf

    return tf.nn.avg_pool2d(
        x,
        op.options["window"],
        op.options["strides"],
        op.options["padding"].upper(),
    ).numpy()


def _is_global(op):
    return tuple(op.options["window"]) == op.inputs[0].shape[:2]


def _max_pool(op, x):
    return windows.max_pool(
        x,
        op.options["window"],
        op.options["strides"],
        op.options["padding"].upper(),
    )


def _mean_options(op, schema):
    options = schema.ReducerOptionsT()
    options.keepDims = op.options["keep_dims"]
    return options


def _mean_axes(op):
    return {"axes": np.array(_axes(op), np.int32)}


def _pool_options(op, schema):
    options = set_window(schema.Pool2DOptionsT(), op, schema)
    options.filterHeight, options.filterWidth = op.options["window"]
    return options


KERNELS = {
    "mean": Kernel("MEAN", 2, _mean, _mean_options, _mean_axes),
    "float_average_pool": Kernel(
        "AVERAGE_POOL_2D",
        1,
        _float_average_pool,
        _pool_options,
        is_exact=False,
    ),
    "float_mean": Kernel(
        "MEAN", 1, _float_mean, _mean_options, _mean_axes, is_exact=False
    ),
    "max_pool": Kernel(
        "MAX_POOL_2D", 2, _max_pool, _pool_options, has_sizes=_is_global
    ),
}
