"""Products of two activations, as attention has them."""

import numpy as np

from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import activate
from keras_saq.export.kernels.kernel import centred
from keras_saq.export.kernels.kernel import rescale


def _batch_matmul(op, a, b):
    """Matrix products; `b` is transposed.

    XNNPACK's integer kernel wants the zero point 0 of `b`, and rounds as a
    convolution does.
    """
    first, second = op.inputs
    if op.output.is_float:
        return activate(op, a @ b.swapaxes(-1, -2))
    # Sums of less than 2**53: exact, and faster than in integers.
    sums = centred(first, a).astype(np.float64) @ centred(second, b).astype(
        np.float64
    ).swapaxes(-1, -2)
    scale = np.float32(first.scale) * np.float32(second.scale)
    multiplier = scale / np.float32(op.output.scale)
    return rescale(op, sums.astype(np.int64), multiplier)


def _options(op, schema):
    options = schema.BatchMatMulOptionsT()
    options.adjX, options.adjY = False, True
    return options


KERNELS = {
    "batch_matmul": Kernel(
        "BATCH_MATMUL", 3, _batch_matmul, _options, is_exact=False
    ),
}
