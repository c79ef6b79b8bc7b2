"""Runs an integer program: what its kernels compute, code by code.

The kernels are those of XNNPACK, LiteRT's CPU delegate. Every one rounds
once: convolutions and dense kernels accumulate integers exactly and compute

    clip(rint(float32(acc) * ((s_in * s_w) / s_out))) + zero point

in float32, averages add the zero points before they round (`_mean`), and ADD
works with 20-bit integer multipliers and rounds half up. A float32 forward
pass of the Keras model is not such a reference: one rounding tie changes a
code, and the change spreads with depth.
"""

import numpy as np

_INT8_MIN, _INT8_MAX = -128, 127
_FLOAT32_EXACT = 2**24
_ADD_BITS = 20


def run(program, inputs, keep=None):
    """Runs a program on a batch.

    Args:
        program: a `Program`.
        inputs: one array per program input, codes or float as it declares.
        keep: a list that receives `(op, output array)` for every op, or
            `None`.

    Returns:
        One array per program output.
    """
    values = {id(t): np.asarray(x) for t, x in zip(program.inputs, inputs)}
    for op in program.ops:
        arrays = [values[id(t)] for t in op.inputs]
        values[id(op.output)] = _KERNELS[op.kind](op, *arrays)
        if keep is not None:
            keep.append((op, values[id(op.output)]))
    return [values[id(t)] for t in program.outputs]


def _store(op, real_codes):
    """Rounded codes relative to zero -> int8, with the fused activation."""
    output = op.output
    low, high = _INT8_MIN, _INT8_MAX
    if op.activation != "linear":
        low = max(low, output.zero_point)
    if op.activation == "relu6":
        six = np.rint(np.float32(6.0) / np.float32(output.scale))
        high = min(high, int(six) + output.zero_point)
    codes = np.clip(real_codes + output.zero_point, low, high)
    return codes.astype(np.int8)


def _centred(tensor, codes):
    """Codes relative to the zero point."""
    return codes.astype(np.int32) - tensor.zero_point


def _rescale(op, accumulator, multiplier):
    scaled = accumulator.astype(np.float32) * multiplier
    # Far outside of int8 nothing changes, and the cast stays defined.
    return _store(op, np.rint(np.clip(scaled, -1e4, 1e4)).astype(np.int64))


def _exact_dtype(x, codes, axis):
    """The narrowest float type that holds every partial sum exactly."""
    others = tuple(i for i in range(codes.ndim) if i != axis)
    largest = np.abs(codes.astype(np.int64)).sum(axis=others).max()
    bound = int(np.abs(x).max(initial=0)) * int(largest)
    return np.float32 if bound < _FLOAT32_EXACT else np.float64


def _weighted(op, x):
    weights, source = op.weights, op.inputs[0]
    x = _centred(source, x)
    dtype = _exact_dtype(x, weights.codes, weights.axis)
    accumulate = _fully_connected if op.kind == "fully_connected" else _conv
    sums = accumulate(op, x.astype(dtype), weights.codes.astype(dtype))
    accumulator = np.rint(sums).astype(np.int64) + weights.bias
    multiplier = (np.float32(source.scale) * weights.scale) / np.float32(
        op.output.scale
    )
    return _rescale(op, accumulator, multiplier)


def _fully_connected(op, x, codes):
    return x @ codes.T


def _conv(op, x, codes):
    import tensorflow as tf

    strides = (1, *op.options["strides"], 1)
    padding = op.options["padding"].upper()
    dilation = op.options["dilation"]
    if op.kind == "conv":
        return tf.nn.conv2d(
            x, codes.transpose(1, 2, 3, 0), strides, padding, dilations=dilation
        ).numpy()
    kernel = codes.reshape(
        *codes.shape[1:3], -1, op.options["depth_multiplier"]
    )
    if strides[1] != strides[2]:
        # TensorFlow's kernel wants equal strides; LiteRT's does not.
        dense = tf.nn.depthwise_conv2d(
            x, kernel, (1, 1, 1, 1), padding, dilations=dilation
        ).numpy()
        return dense[:, :: strides[1], :: strides[2]]
    return tf.nn.depthwise_conv2d(
        x, kernel, strides, padding, dilations=dilation
    ).numpy()


def _add(op, a, b):
    first, second = op.inputs
    scales = [
        np.float32(t.scale) / np.float32(op.output.scale) for t in op.inputs
    ]
    exponent = int(np.frexp(max(scales))[1]) - 1
    shift = _ADD_BITS - exponent
    m = [int(np.rint(np.ldexp(np.float64(s), shift))) for s in scales]
    total = (
        _centred(first, a).astype(np.int64) * m[0]
        + _centred(second, b).astype(np.int64) * m[1]
    )
    return _store(op, (total + (1 << (shift - 1))) >> shift)


def _mean(op, x):
    """XNNPACK's mean: float32, with both zero points inside the rounding.

    Found by comparing candidates with the kernel on sums that lie within a
    few float32 ulps of a rounding tie, which is where they differ.
    """
    (source,) = op.inputs
    total = x.astype(np.int64).sum(
        axis=(1, 2), keepdims=op.options["keep_dims"]
    )
    count = np.float32(source.shape[0] * source.shape[1])
    ratio = np.float32(source.scale) / np.float32(op.output.scale)
    scale = ratio * (np.float32(1.0) / count)
    bias = (
        np.float32(op.output.zero_point)
        - (count * np.float32(source.zero_point)) * scale
    )
    codes = np.rint(total.astype(np.float32) * scale + bias)
    return np.clip(codes, _INT8_MIN, _INT8_MAX).astype(np.int8)


def _max_pool(op, x):
    import tensorflow as tf

    pooled = tf.nn.max_pool2d(
        x.astype(np.float32),
        op.options["window"],
        op.options["strides"],
        op.options["padding"].upper(),
    )
    return pooled.numpy().astype(np.int8)


def _pad(op, x):
    pads = [(0, 0), *op.options["padding"], (0, 0)]
    return np.pad(x, pads, constant_values=op.inputs[0].zero_point)


def _reshape(op, x):
    return x.reshape(-1, *op.output.shape)


def _slice(op, x):
    window = tuple(
        slice(first, first + size)
        for first, size in zip(op.options["begin"], op.output.shape)
    )
    return x[(slice(None), *window)]


def _space_to_depth(op, x):
    block = op.options["block_size"]
    batch, height, width, channels = x.shape
    x = x.reshape(
        batch, height // block, block, width // block, block, channels
    )
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *op.output.shape)


def _concatenate(op, *arrays):
    return np.concatenate(arrays, axis=op.options["axis"])


def _quantize(op, x):
    inverse = np.float32(1.0) / np.float32(op.output.scale)
    codes = np.rint(np.clip(x.astype(np.float32) * inverse, -1e4, 1e4))
    codes = codes.astype(np.int64) + op.output.zero_point
    if op.output.is_uint8:
        return np.clip(codes, 0, 255).astype(np.uint8)
    return np.clip(codes, _INT8_MIN, _INT8_MAX).astype(np.int8)


def _requantize(op, x):
    """A change of the zero point alone: the scales are equal."""
    (source,) = op.inputs
    codes = _centred(source, x) + op.output.zero_point
    if op.output.is_uint8:
        return np.clip(codes, 0, 255).astype(np.uint8)
    return np.clip(codes, _INT8_MIN, _INT8_MAX).astype(np.int8)


def _dequantize(op, x):
    (source,) = op.inputs
    return _centred(source, x).astype(np.float32) * np.float32(source.scale)


def _softmax(op, x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _sigmoid(op, x):
    return 1.0 / (1.0 + np.exp(-x))


def _tanh(op, x):
    return np.tanh(x)


_KERNELS = {
    "add": _add,
    "concatenate": _concatenate,
    "conv": _weighted,
    "depthwise": _weighted,
    "dequantize": _dequantize,
    "fully_connected": _weighted,
    "max_pool": _max_pool,
    "mean": _mean,
    "pad": _pad,
    "quantize": _quantize,
    "requantize": _requantize,
    "reshape": _reshape,
    "sigmoid": _sigmoid,
    "slice": _slice,
    "softmax": _softmax,
    "space_to_depth": _space_to_depth,
    "tanh": _tanh,
}
