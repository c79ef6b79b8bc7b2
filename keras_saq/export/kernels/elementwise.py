"""Sums, products and comparisons of two tensors, element by element.

XNNPACK adds with 20-bit integer multipliers and rounds half up; it multiplies
codes exactly and rounds once, to even, as convolutions do. Float tensors are
IEEE 754's own operations.
"""

import numpy as np

from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import activate
from keras_saq.export.kernels.kernel import centred
from keras_saq.export.kernels.kernel import make_options
from keras_saq.export.kernels.kernel import rescale
from keras_saq.export.kernels.kernel import store

_ADD_BITS = 20


def _sum(sign):
    def run(op, a, b):
        if op.output.is_float:
            return activate(op, a + b if sign > 0 else a - b)
        scales = [
            np.float32(t.scale) / np.float32(op.output.scale) for t in op.inputs
        ]
        exponent = int(np.frexp(max(scales))[1]) - 1
        shift = _ADD_BITS - exponent
        m = [int(np.rint(np.ldexp(np.float64(s), shift))) for s in scales]
        first, second = (
            centred(t, x).astype(np.int64) for t, x in zip(op.inputs, (a, b))
        )
        total = first * m[0] + sign * second * m[1]
        return store(op, (total + (1 << (shift - 1))) >> shift)

    return run


def _multiply(op, a, b):
    if op.output.is_float:
        return activate(op, a * b)
    first, second = op.inputs
    products = centred(first, a) * centred(second, b)
    scale = np.float32(first.scale) * np.float32(second.scale)
    return rescale(op, products, scale / np.float32(op.output.scale))


def _float(function):
    def run(op, *arrays):
        return activate(op, function(*arrays))

    return run


KERNELS = {
    "add": Kernel("ADD", 2, _sum(1), make_options("Add", potScaleInt16=False)),
    "subtract": Kernel(
        "SUB", 2, _sum(-1), make_options("Sub", potScaleInt16=False)
    ),
    "multiply": Kernel("MUL", 2, _multiply, make_options("Mul")),
    "divide": Kernel("DIV", 1, _float(np.divide), make_options("Div")),
    "maximum": Kernel(
        "MAXIMUM", 1, _float(np.maximum), make_options("MaximumMinimum")
    ),
    "minimum": Kernel(
        "MINIMUM", 1, _float(np.minimum), make_options("MaximumMinimum")
    ),
}
