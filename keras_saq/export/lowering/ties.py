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
# Relative error that is granted to a chain of float kernels: some float32
# steps of 2^-23.
_RELATIVE_ERROR = 2.0**-20
_ELEMENTWISE = {"dequantize", *elementwise.KERNELS, *functions.KERNELS}
_ELEMENTWISE -= {"softmax"}


def distance_from_ties(source, computed, quantization):
    """How far from a rounding tie the nearest of 256 values is.

    Args:
        source: the int8 `Tensor` that the function reads.
        computed: the `Op`s of the function, dequantization included.
        quantization: the `Op` that quantizes its result.

    Returns:
        Distance in output steps; `None` if it is too small to be sure, or if
        the ops are no function of single elements.
    """
    values = {id(source): _CODES.astype(np.int8)}
    largest = 0.0
    for op in computed:
        if op is quantization:
            break
        if op.kind == "reshape" and id(op.inputs[0]) in values:
            values[id(op.output)] = values[id(op.inputs[0])]
            continue
        if op.kind not in _ELEMENTWISE:
            return None
        arrays = []
        for tensor in op.inputs:
            if tensor.is_constant:
                arrays.append(np.float32(tensor.data))
            elif id(tensor) in values:
                arrays.append(values[id(tensor)])
            else:
                return None
        made = KERNELS[op.kind].run(_flat(op), *arrays)
        values[id(op.output)] = made
        largest = max(largest, float(np.abs(made).max()))
    (result,) = quantization.inputs
    if id(result) not in values:
        return None
    scale = float(quantization.output.scale)
    steps = values[id(result)].astype(np.float64) / scale
    limits = np.clip(steps, -129.0, 256.0)
    distance = np.abs(np.abs(limits - np.floor(limits)) - 0.5)
    granted = _RELATIVE_ERROR * np.minimum(
        largest / scale, np.abs(steps) + 256.0
    )
    return float(distance.min()) if (distance > granted).all() else None


def _flat(op):
    """The op, on a list of values instead of a whole tensor."""
    output = op.output
    return dataclasses.replace(op, output=Tensor("", (), output.scale))
