"""Runs an integer program: what its kernels compute, code by code.

The kernels are those of XNNPACK, LiteRT's CPU delegate; each is described
where it is written, in `keras_saq.export.kernels`. A float32 forward pass of
the Keras model is not such a reference: one rounding tie changes a code, and
the change spreads with depth.
"""

import numpy as np

from keras_saq.export.kernels import KERNELS


def run(program, inputs, keep=None, given=None):
    """Runs a program on a batch.

    Args:
        program: a `Program`.
        inputs: one array per program input, codes or float as it declares.
        keep: a list that receives `(op, output array)` for every op, or
            `None`.
        given: a dict from `Tensor` to its array, which then counts instead of
            what the reference computed for it; or `None`.

    Returns:
        One array per program output.
    """
    values = {id(t): np.asarray(x) for t, x in zip(program.inputs, inputs)}
    replaced = {id(t): np.asarray(x) for t, x in (given or {}).items()}
    for op in program.ops:
        arrays = [t.data if t.is_constant else values[id(t)] for t in op.inputs]
        made = KERNELS[op.kind].run(op, *arrays)
        values[id(op.output)] = replaced.get(id(op.output), made)
        if keep is not None:
            keep.append((op, made))
    return [values[id(t)] for t in program.outputs]
