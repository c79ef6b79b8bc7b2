"""Kernels with integer weights that round their float input themselves.

LiteRT calls this dynamic range quantization. XNNPACK takes the range of each
sample (of each row, for a dense kernel), extended to contain zero, makes int8
codes of it, accumulates integers exactly and scales back,

    y = fma(float32(acc) * (1 / inverse scale), weight scale, bias)

Found by comparison, since no specification says it: on x86 this is XNNPACK's
result to the last bit.
"""

import numpy as np

from keras_saq.export.kernels import weighted
from keras_saq.export.kernels.kernel import INT8_MAX
from keras_saq.export.kernels.kernel import INT8_MIN
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import activate

PREFIX = "dynamic_"


def _codes(x, axes):
    """Codes relative to their zero point, and the scale they have."""
    low = np.minimum(x.min(axis=axes, keepdims=True), np.float32(0.0))
    high = np.maximum(x.max(axis=axes, keepdims=True), np.float32(0.0))
    width = np.where(high == low, np.float32(INT8_MAX - INT8_MIN), high - low)
    inverse = np.float32(INT8_MAX - INT8_MIN) / width
    from_low, from_high = low * inverse, high * inverse
    # The end of the range whose own rounding is the smaller one counts.
    point = np.where(
        (INT8_MIN + from_low) + (INT8_MAX + from_high) > 0,
        INT8_MIN - from_low,
        INT8_MAX - from_high,
    )
    point = np.rint(np.clip(point, INT8_MIN, INT8_MAX))
    codes = np.clip(np.rint(x * inverse) + point, INT8_MIN, INT8_MAX)
    return codes - point, np.float32(1.0) / inverse


def _run(op, x, codes, bias):
    kind = op.kind.removeprefix(PREFIX)
    axes = (-1,) if kind == "fully_connected" else tuple(range(1, x.ndim))
    centred, scale = _codes(x.astype(np.float32), axes)
    sums = weighted.accumulate(kind, op, centred, codes)
    scaled = sums.astype(np.float32) * scale
    # In float64 product and sum are exact enough to be rounded only once.
    real = scaled.astype(np.float64) * op.inputs[1].scale + bias
    return activate(op, real.astype(np.float32))


def _fully_connected_options(op, schema):
    options = weighted.fully_connected_options(op, schema)
    options.asymmetricQuantizeInputs = True
    return options


def _kernel(operator, version, options, **kwargs):
    return Kernel(operator, version, _run, options, is_exact=False, **kwargs)


KERNELS = {
    f"{PREFIX}conv": _kernel("CONV_2D", 5, weighted.conv_options),
    f"{PREFIX}fully_connected": _kernel(
        "FULLY_CONNECTED", 9, _fully_connected_options
    ),
    f"{PREFIX}transpose_conv": _kernel(
        "TRANSPOSE_CONV",
        4,
        weighted.transpose_conv_options,
        constants=weighted.output_shape,
    ),
}
