"""Packed k x k convolutions, exact: patches by slices, then a dense kernel.

LiteRT's convolution reads packed 4-bit codes only in a built-in kernel that is
three times slower than XNNPACK's and may be off by one. XNNPACK's dense kernel
reads them exactly. A convolution is that dense kernel on patches, and patches
need no arithmetic: they are slices of the padded image, side by side. PAD,
SLICE, SPACE_TO_DEPTH and CONCATENATION only move codes, so that the result is
the convolution's, code by code, and the delegate runs all of it.

The price is memory traffic, k * k times the image, and time (`docs/export.md`).
"""

import dataclasses

import numpy as np

from keras_saq.export.program import Op
from keras_saq.export.program import Tensor

# XNNPACK joins at most five tensors at once.
_LARGEST_JOIN = 5
# What the operators and tensors of the patches add to a file, at most.
_BYTES_PER_OPERATOR = 200


def with_packed_convolutions(program):
    """The program with convolutions on packed codes, where that saves bytes.

    Args:
        program: a `Program`; it stays as it is.

    Returns:
        A `Program` that computes the same codes.
    """
    packer = _Packer(program)
    ops = []
    for op in program.ops:
        ops += packer.packed(op) or [op]
    return dataclasses.replace(program, ops=ops)


class _Packer:
    def __init__(self, program):
        self._names = {t.name for t in program.inputs}
        self._names |= {op.output.name for op in program.ops}
        self._ops = []

    def packed(self, op):
        """The ops that replace a convolution, or `None`."""
        if op.kind != "conv" or op.inputs[0].is_float:
            return None
        if None in op.inputs[0].shape:
            return None
        bits = _packed_bits(op)
        if bits is None:
            return None
        self._ops = []
        stride = op.options["strides"][0]
        image = self._padded(op)
        if stride == 1:
            patches = self._sliding(op, image)
            order = None
        else:
            patches, order = self._strided(op, image, stride)
        weights = op.weights
        codes = weights.codes.reshape(len(weights.codes), -1)
        if order is not None:
            codes = codes[:, order]
        weights = dataclasses.replace(
            weights, codes=codes, num_bits=bits, axis=0
        )
        dense = dataclasses.replace(
            op,
            kind="fully_connected",
            inputs=[patches],
            weights=weights,
            options={},
        )
        saved = weights.codes.size * (8 - bits) // 8
        if saved <= _BYTES_PER_OPERATOR * len(self._ops):
            return None
        return [*self._ops, dense]

    def _padded(self, op):
        """The image with the border that the kernel reads, or itself."""
        (image,) = op.inputs
        stride = op.options["strides"][0]
        padding = tuple(
            _padding(size, kernel, dilation, stride, op.options["padding"])
            for size, kernel, dilation in zip(
                image.shape, op.weights.codes.shape[1:], op.options["dilation"]
            )
        )
        if not np.any(padding):
            return image
        height, width = (
            size + sum(pads) for size, pads in zip(image.shape, padding)
        )
        return self._emit(
            "pad",
            [image],
            (height, width, image.shape[2]),
            op,
            {"padding": padding},
        )

    def _sliding(self, op, image):
        """Stride 1: neighbours along the rows, then along the columns."""
        height, width, _ = op.output.shape
        kernel_height, kernel_width = op.weights.codes.shape[1:3]
        down, right = op.options["dilation"]
        columns = [
            self._slice(op, image, (0, j * right, 0), width=width)
            for j in range(kernel_width)
        ]
        image = self._join(op, columns)
        rows = [
            self._slice(op, image, (i * down, 0, 0), height=height)
            for i in range(kernel_height)
        ]
        return self._join(op, rows)

    def _strided(self, op, image, stride):
        """Stride s: each s x s block of pixels becomes one with all channels.

        The kernel's rows and columns that lie in one block are channels then;
        the ones that follow each other are one slice.
        """
        height, width, channels = image.shape
        blocks = self._emit(
            "space_to_depth",
            [image],
            (height // stride, width // stride, channels * stride**2),
            op,
            {"block_size": stride},
        )
        height, width, _ = op.output.shape
        kernel = op.weights.codes.shape[1:3]
        index = np.arange(op.weights.codes[0].size).reshape(*kernel, channels)
        parts, order = [], []
        for start, length, taps in _runs(kernel, stride):
            down, right, place = start
            order += [index[tap] for tap in taps]
            parts.append(
                self._slice(
                    op,
                    blocks,
                    (down, right, place * channels),
                    height,
                    width,
                    length * channels,
                )
            )
        return self._join(op, parts), np.concatenate(order)

    def _slice(self, op, image, begin, height=None, width=None, depth=None):
        shape = tuple(
            size or whole
            for size, whole in zip((height, width, depth), image.shape)
        )
        if shape == tuple(image.shape):
            return image
        return self._emit("slice", [image], shape, op, {"begin": begin})

    def _join(self, op, parts):
        while len(parts) > 1:
            parts = [
                self._joined(op, parts[i : i + _LARGEST_JOIN])
                for i in range(0, len(parts), _LARGEST_JOIN)
            ]
        return parts[0]

    def _joined(self, op, parts):
        if len(parts) == 1:
            return parts[0]
        depth = sum(part.shape[2] for part in parts)
        shape = (*parts[0].shape[:2], depth)
        return self._emit("concatenate", parts, shape, op, {"axis": 3})

    def _emit(self, kind, inputs, shape, op, options):
        source = op.inputs[0]
        number = len(self._ops)
        while (name := f"{op.output.name}/{number}") in self._names:
            number += 1
        self._names.add(name)
        output = Tensor(
            name,
            tuple(int(n) for n in shape),
            source.scale,
            source.zero_point,
            is_unsigned=source.is_unsigned,
        )
        self._ops.append(Op(kind, inputs, output, None, "linear", options))
        self._ops[-1].path = op.path
        return output


def _packed_bits(op):
    """Bits of the packed codes, or `None` where there is no such form."""
    codes, options = op.weights.codes, op.options
    if codes.shape[3] != op.inputs[0].shape[2]:
        return None  # grouped
    strides = set(options["strides"])
    if len(strides) > 1 or (strides != {1} and options["dilation"] != (1, 1)):
        return None
    largest = int(np.abs(codes).max(initial=0))
    depth = codes[0].size
    # XNNPACK takes rows of whole bytes only.
    fitting = (b for b in (2, 4) if largest < 2 ** (b - 1))
    return next((b for b in fitting if depth * b % 8 == 0), None)


def _padding(size, kernel, dilation, stride, mode):
    """Pixels before and after, so that whole blocks hold every patch."""
    reach = (kernel - 1) * dilation + 1
    before = 0
    if mode == "same":
        count = -(-size // stride)
        total = max((count - 1) * stride + reach - size, 0)
        before = total // 2
    else:
        count = (size - reach) // stride + 1
    # The last patch ends inside of a block when strides are blocks.
    needed = (count - 1) * stride + -(-reach // stride) * stride
    after = max(needed - size - before, 0)
    after += -(size + before + after) % stride
    return before, after


def _runs(kernel, stride):
    """Taps of a kernel that are neighbouring channels of one block.

    Yields:
        `((block row, block column, first place), number of places, taps)`
        where a place is a pixel of a block, row by row.
    """
    rows, columns = kernel
    for down in range(-(-rows // stride)):
        for right in range(-(-columns // stride)):
            run = []
            for place in range(stride**2):
                tap = (
                    down * stride + place // stride,
                    right * stride + place % stride,
                )
                if tap[0] < rows and tap[1] < columns:
                    run.append((place, tap))
                elif run:
                    yield (down, right, run[0][0]), len(run), _taps(run)
                    run = []
            if run:
                yield (down, right, run[0][0]), len(run), _taps(run)


def _taps(run):
    return [tap for _, tap in run]
