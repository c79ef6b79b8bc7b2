"""Between float and integers, and from one zero point to another."""

import numpy as np

from keras_saq.export.kernels.kernel import INT8_MAX
from keras_saq.export.kernels.kernel import INT8_MIN
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import centred


def _saturate(tensor, codes):
    if tensor.is_uint8:
        return np.clip(codes, 0, 255).astype(np.uint8)
    return np.clip(codes, INT8_MIN, INT8_MAX).astype(np.int8)


def _quantize(op, x):
    inverse = np.float32(1.0) / np.float32(op.output.scale)
    codes = np.rint(np.clip(x.astype(np.float32) * inverse, -1e4, 1e4))
    return _saturate(op.output, codes.astype(np.int64) + op.output.zero_point)


def _requantize(op, x):
    """A change of the zero point alone: the scales are equal."""
    (source,) = op.inputs
    return _saturate(op.output, centred(source, x) + op.output.zero_point)


def _dequantize(op, x):
    (source,) = op.inputs
    scale = np.float32(source.scale)
    if scale.ndim:
        shape = [1] * x.ndim
        shape[source.axis] = -1
        scale = scale.reshape(shape)
    return centred(source, x).astype(np.float32) * scale


KERNELS = {
    "dequantize": Kernel("DEQUANTIZE", 2, _dequantize),
    "quantize": Kernel("QUANTIZE", 2, _quantize),
    "requantize": Kernel("QUANTIZE", 2, _requantize),
}
