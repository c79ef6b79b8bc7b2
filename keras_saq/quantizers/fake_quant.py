"""Fake quantization: the numerics, and nothing else.

Source: LSQ, Learned Step Size Quantization (Esser et al., ICLR 2020,
arXiv 1902.08153), equations 1 to 3. With the scale s, v = x / s and the code
range [qmin, qmax]:

    y     = s * round(clip(v, qmin, qmax))                        (1, 2)
    dy/dx = 1 where qmin <= v <= qmax, else 0                     (STE)
    dy/ds = round(v) - v inside, qmin below, qmax above           (3)

What is trained is log(s), so that s stays positive whatever the optimizer
does, and its gradient is the chain rule's, dL/d(log s) = s * dL/ds. That is
LSQ's gradient in another coordinate, with one difference: LSQ multiplies the
gradient of s by g = 1 / sqrt(N * qmax), to make the relative change of s per
step comparable to that of the weights, for SGD on s itself. In the logarithm
a change is relative to begin with. `docs/results.md` has the comparison.

Calibration puts the largest weight of a channel exactly on a bound, and the
logarithm moves the bound by a rounding error. Bounds are therefore compared
with a tolerance: what is on one gets its gradient.
"""

import contextlib
import functools
import math
import threading

import keras
import numpy as np
from keras import ops

# Of a bound, relative to it: far more than exp(log(s)) is off by, and far less
# than half a step of 8 bits.
ON_BOUND = 1.0 + 2.0**-18

# Backends compute powers through logarithms, and miss some by a bit.
_EXPONENTS = np.arange(-100, 101)
_POWERS_OF_TWO = np.ldexp(np.float32(1.0), _EXPONENTS).astype("float32")


_state = threading.local()


@contextlib.contextmanager
def composed_kernels():
    """Inside, no fused kernel is used: only divisions, rounding, products.

    For converters to which a fused kernel is a sign that says: integers here.
    """
    previous = getattr(_state, "composed", False)
    _state.composed = True
    try:
        yield
    finally:
        _state.composed = previous


def fake_quantize(x, scale, qmin, qmax, step=1):
    """Rounds `x` to the grid `scale * {qmin, qmin + step, ..., qmax}`.

    Args:
        x: float32 tensor.
        scale: positive float32 tensor that broadcasts against `x`: a scalar,
            or e.g. one value per channel.
        qmin: smallest code, an integer.
        qmax: largest code, an integer.
        step: distance of neighbouring codes; 2 for a grid without zero.

    Returns:
        A tensor of the shape of `x`, with LSQ's gradients for `x` and `scale`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers.fake_quant import fake_quantize
    >>> y = fake_quantize(np.float32([-9.0, 0.4, 0.6]), 1.0, -7, 7)
    >>> [float(v) for v in y]
    [-7.0, 0.0, 1.0]
    """
    x = ops.convert_to_tensor(x)
    scale = ops.convert_to_tensor(scale, dtype=x.dtype)
    if keras.backend.backend() == "tensorflow":
        from keras_saq.quantizers import tensorflow_kernels as kernels

        x, scale = kernels.read(x), kernels.read(scale)
        supported = step == 1 and kernels.supports(qmin, qmax)
        supported = supported and not getattr(_state, "composed", False)
        if supported and len(scale.shape) == 0:
            return kernels.fake_quantize_per_tensor(x, scale, qmin, qmax)
    return _with_gradient(qmin, qmax, step)(x, scale)


def nearest_on_grid(x, scale, qmin, qmax):
    """The values of `fake_quantize`; its gradient is zero almost everywhere.

    `qmin` and `qmax` can be tensors here.
    """
    return ops.round(ops.clip(x / scale, qmin, qmax)) * scale


def with_gradient_of(value, surrogate):
    """The tensor `value`, bit by bit, with the gradients of `surrogate`."""
    return ops.stop_gradient(value) + (surrogate - ops.stop_gradient(surrogate))


def where_inside(x, low, high):
    """`x` in [low, high], bounds included, and a constant elsewhere."""
    return ops.where(is_inside(x, low, high), x, 0.0)


def is_inside(x, low, high):
    """Where `x` is in [low, high], rounding errors of the bounds aside."""
    return ops.logical_and(x >= low * ON_BOUND, x <= high * ON_BOUND)


def clip_with_gradient(x, low, high):
    """Clips; at a bound and beyond, the gradient belongs to the bound."""
    return ops.where(x >= high, high, ops.where(x <= low, low, x))


def two_to_the(exponent):
    """2^round(exponent), exactly; the gradient is that of 2^exponent there.

    Exponents beyond -100 and 100 count as these.
    """
    index = ops.clip(ops.round(exponent), _EXPONENTS[0], _EXPONENTS[-1])
    index = ops.cast(index - _EXPONENTS[0], "int32")
    power = ops.take(ops.convert_to_tensor(_POWERS_OF_TWO), index)
    relative = math.log(2.0) * (exponent - ops.stop_gradient(exponent))
    return power * (1.0 + relative)


# JAX compiles once per function, so there is one per code range.
@functools.cache
def _with_gradient(qmin, qmax, step):
    @ops.custom_gradient
    def function(x, scale):
        codes = ops.clip(x / scale, qmin, qmax)
        if step == 1:
            codes = ops.round(codes)
        else:
            codes = ops.round((codes - qmin) / step) * step + qmin
        y = codes * scale

        # Reads nothing but x and y, which the layers around keep anyway:
        # codes or masks of its own would be one more tensor in memory.
        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            inside = is_inside(x, qmin * scale, qmax * scale)
            dx = ops.where(inside, dy, 0.0)
            change = dy * ops.where(inside, y - x, y)
            return dx, _sum_to(change, scale.shape) / scale

        return y, gradient

    return function


def _sum_to(x, shape):
    """Sums `x` over the axes along which `shape` was broadcast."""
    leading = list(range(len(x.shape) - len(shape)))
    x = ops.sum(x, axis=leading) if leading else x
    ones = [i for i, size in enumerate(shape) if size == 1 != x.shape[i]]
    return ops.sum(x, axis=ones, keepdims=True) if ones else x
