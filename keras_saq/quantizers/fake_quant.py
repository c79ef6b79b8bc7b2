"""Fake quantization with a learned scale: the numerics, and nothing else.

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
"""

import keras
from keras import ops


def fake_quantize(x, log_scale, qmin, qmax):
    """Rounds `x` to the grid `s * {qmin, ..., qmax}`, s = exp(log_scale).

    Args:
        x: float32 tensor.
        log_scale: float32 tensor that broadcasts against `x` from the last
            axis: a scalar, or one value per channel.
        qmin: smallest code, an integer.
        qmax: largest code, an integer.

    Returns:
        A tensor of the shape of `x`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers.fake_quant import fake_quantize
    >>> y = fake_quantize(np.float32([-9.0, 0.4, 0.6]), 0.0, -7, 7)
    >>> [float(v) for v in y]
    [-7.0, 0.0, 1.0]
    """
    x = ops.convert_to_tensor(x)
    log_scale = ops.convert_to_tensor(log_scale, dtype=x.dtype)
    if keras.backend.backend() == "tensorflow":
        from keras_saq.quantizers import tensorflow_kernels as kernels

        x, log_scale = kernels.read(x), kernels.read(log_scale)
        if len(log_scale.shape) == 0 and kernels.supports(qmin, qmax):
            return kernels.fake_quantize_per_tensor(x, log_scale, qmin, qmax)
    return _with_gradient(qmin, qmax)(x, log_scale)


def _with_gradient(qmin, qmax):
    @ops.custom_gradient
    def function(x, log_scale):
        scale = ops.exp(log_scale)
        v = x / scale
        codes = ops.round(ops.clip(v, qmin, qmax))

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            inside = ops.logical_and(v >= qmin, v <= qmax)
            dx = ops.where(inside, dy, 0.0)
            per_element = dy * codes - dx * v
            ds = _sum_to(per_element, log_scale.shape)
            return dx, ds * scale

        return codes * scale, gradient

    return function


def _sum_to(x, shape):
    """Sums `x` over the axes along which `shape` was broadcast."""
    axes = list(range(len(x.shape) - len(shape)))
    return ops.sum(x, axis=axes) if axes else x
