"""Kernels that move codes and compute nothing."""

import numpy as np

from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import always
from keras_saq.export.kernels.kernel import make_options


def _pad(op, x):
    pads = _paddings(op)["padding"]
    return np.pad(x, pads, constant_values=op.inputs[0].zero_point)


def _paddings(op):
    pads = [(0, 0), *op.options["padding"]]
    pads += [(0, 0)] * (1 + len(op.inputs[0].shape) - len(pads))
    return {"padding": np.array(pads, np.int32)}


def _reshape(op, x):
    return x.reshape(-1, *op.output.shape)


def _new_shape(op):
    return {"shape": np.array([-1, *op.output.shape], np.int32)}


def _concatenate(op, *arrays):
    return np.concatenate(arrays, axis=op.options["axis"])


def _concatenation_options(op, schema):
    options = schema.ConcatenationOptionsT()
    options.axis = op.options["axis"]
    return options


def _transpose(op, x):
    return x.transpose(op.options["axes"])


def _transpose_axes(op):
    return {"axes": np.array(op.options["axes"], np.int32)}


def _slice(op, x):
    window = tuple(
        slice(first, first + size)
        for first, size in zip(op.options["begin"], op.output.shape)
    )
    return x[(slice(None), *window)]


def _slice_window(op):
    # SLICE with the size -1 for "all of the batch" is not delegated.
    begin = np.array(op.options["begin"], np.int32)
    return {
        "begin": np.append(np.int32(0), begin),
        "end": np.append(np.int32(0), begin + np.int32(op.output.shape)),
        "strides": np.ones(1 + len(begin), np.int32),
    }


def _space_to_depth(op, x):
    block = op.options["block_size"]
    batch, height, width, channels = x.shape
    x = x.reshape(
        batch, height // block, block, width // block, block, channels
    )
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, *op.output.shape)


def _space_to_depth_options(op, schema):
    options = schema.SpaceToDepthOptionsT()
    options.blockSize = op.options["block_size"]
    return options


def _squeeze_options(op, schema):
    options = schema.SqueezeOptionsT()
    options.squeezeDims = np.array([op.options["axis"]], np.int32)
    return options


def _lookup(op, indices, table):
    """Rows of codes times the scale of each, in float32."""
    (_, table_of) = op.inputs
    rows = table.astype(np.float32)
    if not table_of.is_float:
        rows = rows * table_of.scale.reshape(-1, 1)
    return rows[indices.astype(np.int64)]


KERNELS = {
    "concatenate": Kernel(
        "CONCATENATION", 2, _concatenate, _concatenation_options
    ),
    "expand_dims": Kernel(
        "EXPAND_DIMS",
        1,
        lambda op, x: np.expand_dims(x, op.options["axis"]),
        make_options("ExpandDims"),
        lambda op: {"axis": np.array(op.options["axis"], np.int32)},
    ),
    "lookup": Kernel("EMBEDDING_LOOKUP", 3, _lookup),
    "pad": Kernel("PAD", 2, _pad, constants=_paddings),
    "reshape": Kernel(
        "RESHAPE", 1, _reshape, constants=_new_shape, has_sizes=always
    ),
    "slice": Kernel(
        "STRIDED_SLICE",
        2,
        _slice,
        # The batch is masked out: all of it.
        make_options("StridedSlice", beginMask=1, endMask=1),
        _slice_window,
        has_sizes=always,
    ),
    "space_to_depth": Kernel(
        "SPACE_TO_DEPTH", 2, _space_to_depth, _space_to_depth_options
    ),
    "squeeze": Kernel(
        "SQUEEZE",
        1,
        lambda op, x: np.squeeze(x, op.options["axis"]),
        _squeeze_options,
    ),
    "transpose": Kernel(
        "TRANSPOSE",
        2,
        _transpose,
        make_options("Transpose"),
        _transpose_axes,
    ),
}
