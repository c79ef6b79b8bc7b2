"""Kernels with weights: convolutions of all sorts, and dense.

They accumulate integers exactly and round once,

    clip(rint(float32(acc) * ((s_in * s_w) / s_out))) + zero point

in float32. On float inputs the same operators are float kernels, which sum up
in an order of their own and so agree with ours to some last bits only.
"""

import numpy as np

from keras_saq.export.kernels import windows
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import activate
from keras_saq.export.kernels.kernel import centred
from keras_saq.export.kernels.kernel import rescale

_FLOAT32_EXACT = 2**24


def _exact_dtype(x, codes, axis):
    """The narrowest float type that holds every partial sum exactly."""
    others = tuple(i for i in range(codes.ndim) if i != axis)
    largest = np.abs(codes.astype(np.int64)).sum(axis=others).max()
    bound = int(np.abs(x).max(initial=0)) * int(largest)
    return np.float32 if bound < _FLOAT32_EXACT else np.float64


def accumulate(kind, op, x, codes):
    """Exact sums of integers; `kind` is a name in `KERNELS`."""
    axis = 3 if kind == "depthwise" else 0
    dtype = _exact_dtype(x, codes, axis)
    return _SUMS[kind](op, x.astype(dtype), codes.astype(dtype))


def _run(op, x, *constants):
    if op.weights is None:
        kernel, *bias = constants
        x = x.astype(np.float32)
        return activate(op, sum(bias, _SUMS[op.kind](op, x, kernel)))
    weights, source = op.weights, op.inputs[0]
    sums = accumulate(op.kind, op, centred(source, x), weights.codes)
    accumulator = np.rint(sums).astype(np.int64) + weights.bias
    multiplier = (np.float32(source.scale) * weights.scale) / np.float32(
        op.output.scale
    )
    return rescale(op, accumulator, multiplier)


def _fully_connected(op, x, codes):
    return x @ codes.T


def _window(op):
    padding = op.options["padding"].upper()
    return op.options["strides"], padding, op.options["dilation"]


def _conv(op, x, codes):
    kernel = codes.transpose(1, 2, 3, 0)
    groups = x.shape[-1] // kernel.shape[2]
    made = [
        windows.conv(part, filters, *_window(op))
        for part, filters in zip(
            np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1)
        )
    ]
    return np.concatenate(made, axis=-1)


def _depthwise(op, x, codes):
    multiplier = op.options["depth_multiplier"]
    kernel = codes.reshape(*codes.shape[1:3], -1, multiplier)
    return windows.depthwise(x, kernel, *_window(op))


def _transpose_conv(op, x, codes):
    strides, padding, _ = _window(op)
    kernel = codes.transpose(1, 2, 0, 3)
    shape = op.output.shape[:2]
    return windows.transpose_conv(x, kernel, shape, strides, padding)


_SUMS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "fully_connected": _fully_connected,
    "transpose_conv": _transpose_conv,
}


def set_window(options, op, schema):
    """Padding and strides, which several operators have."""
    options.padding = getattr(schema.Padding, op.options["padding"].upper())
    options.strideH, options.strideW = op.options["strides"]
    return options


def conv_options(op, schema):
    options = set_window(schema.Conv2DOptionsT(), op, schema)
    options.dilationHFactor, options.dilationWFactor = op.options["dilation"]
    return options


def _depthwise_options(op, schema):
    options = set_window(schema.DepthwiseConv2DOptionsT(), op, schema)
    options.dilationHFactor, options.dilationWFactor = op.options["dilation"]
    options.depthMultiplier = op.options["depth_multiplier"]
    return options


def transpose_conv_options(op, schema):
    return set_window(schema.TransposeConvOptionsT(), op, schema)


def fully_connected_options(op, schema):
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims = len(op.output.shape) > 1
    return options


def output_shape(op):
    # XNNPACK takes the batch size from the input; the constant has one.
    return {"shape": np.array([1, *op.output.shape], np.int32)}


def _kernel(operator, version, options, **kwargs):
    return Kernel(operator, version, _run, options, is_exact=False, **kwargs)


KERNELS = {
    "conv": _kernel("CONV_2D", 3, conv_options),
    "depthwise": _kernel("DEPTHWISE_CONV_2D", 3, _depthwise_options),
    "fully_connected": _kernel("FULLY_CONNECTED", 5, fully_connected_options),
    "transpose_conv": _kernel(
        "TRANSPOSE_CONV", 4, transpose_conv_options, constants=output_shape
    ),
}
