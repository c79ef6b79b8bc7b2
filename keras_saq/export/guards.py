"""Refuses inputs of another size than the file was made for.

LiteRT lets a caller resize an input. Most kernels follow; a RESHAPE, whose
shape is written into the file, would take a larger image for several small
ones, and say nothing. Where such a kernel reads a tensor whose size could
still change, the tensor is multiplied by ones of the size that was meant:
exactly, and LiteRT refuses to multiply other sizes.
"""

import dataclasses

import numpy as np

from keras_saq.export.kernels import KERNELS
from keras_saq.export.program import Op
from keras_saq.export.program import Tensor


def with_size_guards(program):
    """The program with multiplications by one where sizes are written down.

    Args:
        program: a `Program`; it stays as it is.

    Returns:
        A `Program` that computes the same codes.
    """
    fixed, guarded, ops = set(), {}, []
    has_channels = set()
    for op in program.ops:
        kernel = KERNELS[op.kind]
        inputs = [t for t in op.inputs if not t.is_constant]
        if kernel.has_sizes(op):
            for tensor in inputs:
                if id(tensor) in fixed or tensor.dtype is not None:
                    continue
                if id(tensor) not in guarded:
                    made = _guards(tensor, id(tensor) in has_channels)
                    ops += made
                    guarded[id(tensor)] = made[-1].output if made else tensor
            op = dataclasses.replace(
                op, inputs=[guarded.get(id(t), t) for t in op.inputs]
            )
        if kernel.has_sizes(op) or all(id(t) in fixed for t in inputs):
            fixed.add(id(op.output))
        is_weighted = op.weights is not None or any(
            t.is_constant and t.shape[-1:] == op.output.shape[-1:]
            for t in op.inputs
        )
        if is_weighted or any(id(t) in has_channels for t in inputs):
            has_channels.add(id(op.output))
        ops.append(op)
    return dataclasses.replace(program, ops=ops)


def _guards(tensor, has_channels):
    """Multiplications by ones along the axes whose length can change."""
    lengths = [1 if n is None else n for n in tensor.shape]
    if not lengths:
        return []
    shapes = []
    if np.prod(lengths[:-1]) > 1:
        shapes.append((1, *lengths[:-1], 1))
    if not has_channels:  # otherwise a kernel's weights refuse others
        shapes.append((*[1] * len(lengths), lengths[-1]))
    ops = []
    for number, shape in enumerate(shapes):
        dtype = np.float32 if tensor.is_float else np.int8
        ones = Tensor(
            f"{tensor.name}/ones_{number}",
            shape,
            None if tensor.is_float else np.float32(1.0),
            data=np.ones(shape, dtype),
            is_static=True,
        )
        output = dataclasses.replace(
            tensor, name=f"{tensor.name}/size_{number}"
        )
        # Of no layer: it has no path.
        ops.append(Op("multiply", [tensor, ones], output))
        tensor = output
    return ops
