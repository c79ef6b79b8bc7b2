"""Is a float function of one int8 tensor an exact table of 256 codes?

A float kernel may differ from NumPy in some last bits. That changes the code
behind it only where the function's value lies next to a rounding tie, and with
256 possible inputs one can look at all of them.
"""

import dataclasses

import numpy as np

from keras_saq.export.kernels import KERNELS
from keras_saq.export.kernels import elementwise
from keras_saq.export.kernels import functions
from keras_saq.export.program import Tensor

_CODES = np.arange(-128, 128)
# Relative error that is granted to a float kernel: four float32 steps of its
# result, or, where a sum inside of it can cancel, of its argument.
_RELATIVE_ERROR = 2.0**-21
_CANCELLING = ("elu", "gelu", "gelu_approximate", "hard_swish")
# Tried in turn, in steps.
_SHIFTS = (0.0, *(sign * i / 1024 for i in range(1, 9) for sign in (1, -1)))
_ELEMENTWISE = {"dequantize", *elementwise.KERNELS, *functions.KERNELS}
_ELEMENTWISE -= {"softmax"}


def away_from_ties(source, computed, result, scale):
    """How far from a rounding tie the nearest of 256 values is.

    Args:
        source: the int8 `Tensor` that the function reads.
        computed: the `Op`s of the function, dequantization included.
        result: the float `Tensor` that they make.
        scale: of the codes that the result becomes.

    Returns:
        `(distance, shift)`, in output steps: so far is the nearest value when
        `shift`, mostly 0, is added to all of them; a value that is on a tie
        is moved a little, and nobody can tell. `None` if the ops are no
        function of single elements.
    """
    values = {id(source): _CODES.astype(np.int8)}
    relative, size = 0.0, 0.0
    for op in computed:
        if op.kind == "reshape" and id(op.inputs[0]) in values:
            values[id(op.output)] = values[id(op.inputs[0])]
            continue
        if op.kind not in _ELEMENTWISE:
            return None
        arrays = []
        for tensor in op.inputs:
            if tensor.is_constant and tensor.data.size == 1:
                arrays.append(np.float32(tensor.data))
            elif id(tensor) in values:
                arrays.append(values[id(tensor)])
            else:
                return None
        made = KERNELS[op.kind].run(_flat(op), *arrays)
        values[id(op.output)] = made
        relative += 0.0 if KERNELS[op.kind].is_exact else _RELATIVE_ERROR
        if op.kind in _CANCELLING:
            size = np.maximum(size, np.abs(arrays[0]))
    if id(result) not in values:
        return None
    steps = values[id(result)].astype(np.float64) / scale
    for shift in _SHIFTS:
        # The sum with the shift is one more rounding.
        error = relative + (2.0**-23 if shift else 0.0)
        distance = _distance(steps + shift, error, size / scale)
        if distance is not None:
            return distance, shift
    return None


def table_distance(kind, source, scale):
    """The same of an integer kernel that has a table, made in float32.

    Returns:
        The distance, or `None` if it is too small to be sure.
    """
    real = (_CODES - source.zero_point) * np.float64(source.scale)
    steps = functions.TABLES[kind](real) / scale
    return _distance(steps, _RELATIVE_ERROR, 0.0)


def _distance(steps, relative, size):
    limits = np.clip(steps, -129.0, 256.0)
    distance = np.abs(np.abs(limits - np.floor(limits)) - 0.5)
    granted = relative * np.maximum(size, np.abs(steps))
    is_sure = (distance > granted).all()
    return float(distance.min()) if is_sure else None


def _flat(op):
    """The op, on a list of values instead of a whole tensor."""
    output = op.output
    return dataclasses.replace(op, output=Tensor("", (), output.scale))
