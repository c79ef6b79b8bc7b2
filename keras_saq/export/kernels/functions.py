"""Functions of one tensor: activations and what normalization needs.

As integer kernels TANH and ELU are tables of 256 codes, in XNNPACK as in
LiteRT's own kernels. LOGISTIC is one too, but LiteRT's own kernel allows one
output scale only, so that it is used in float.
"""

import math

import numpy as np

from keras_saq.export.kernels.kernel import INT8_MAX
from keras_saq.export.kernels.kernel import INT8_MIN
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import centred
from keras_saq.export.kernels.kernel import make_options

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _gelu(x):
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(x.dtype))


def _gelu_approximate(x):
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1.0 + np.tanh(inner))


def _hard_swish(x):
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def _in_double(function):
    """The function in float64, rounded once to float32."""

    def run(op, x):
        return function(x.astype(np.float64)).astype(np.float32)

    return run


def _table(function):
    """What a table of 256 codes says."""

    def run(op, x):
        (source,) = op.inputs
        real = centred(source, x).astype(np.float32) * np.float32(source.scale)
        steps = function(real.astype(np.float64)) / float(op.output.scale)
        codes = np.rint(np.clip(steps, -1e4, 1e4)) + op.output.zero_point
        return np.clip(codes, INT8_MIN, INT8_MAX).astype(np.int8)

    return run


def _leaky_relu(op, x):
    slope = np.float32(op.options["alpha"])
    return np.where(x > 0, x, x * slope).astype(np.float32)


def _leaky_relu_options(op, schema):
    options = schema.LeakyReluOptionsT()
    options.alpha = op.options["alpha"]
    return options


def _float(operator, function, options=None, is_exact=False, version=1):
    given = {} if options is None else {"options": options}
    return Kernel(
        operator, version, _in_double(function), **given, is_exact=is_exact
    )


# What the integer kernels have tables of.
TABLES = {"integer_elu": _elu, "integer_tanh": np.tanh}

KERNELS = {
    "abs": _float("ABS", np.abs, is_exact=True),
    "elu": _float("ELU", _elu),
    "exp": _float("EXP", np.exp),
    "gelu": _float("GELU", _gelu, make_options("Gelu", approximate=False)),
    "gelu_approximate": _float(
        "GELU", _gelu_approximate, make_options("Gelu", approximate=True)
    ),
    "hard_swish": _float("HARD_SWISH", _hard_swish),
    "integer_elu": Kernel("ELU", 1, _table(TABLES["integer_elu"])),
    "integer_tanh": Kernel("TANH", 2, _table(TABLES["integer_tanh"])),
    "leaky_relu": Kernel("LEAKY_RELU", 1, _leaky_relu, _leaky_relu_options),
    "log": _float("LOG", np.log),
    "relu": _float("RELU", lambda x: np.maximum(x, 0), is_exact=True),
    "rsqrt": _float("RSQRT", lambda x: 1.0 / np.sqrt(x)),
    "sigmoid": _float("LOGISTIC", _sigmoid),
    "softmax": _float("SOFTMAX", _softmax, make_options("Softmax", beta=1.0)),
    "tanh": _float("TANH", np.tanh),
}
