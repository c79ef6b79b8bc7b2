"""A mixture of fake quantizers: one tensor, several numbers of bits.

    y = sum_i p_i Q_i(x),   Q_i(x) = s_i * round(clip(x / s_i, qmin_i, qmax_i))

as in EdMIPS (Cai and Vasconcelos, CVPR 2020), with a learned scale for each
candidate. Q_i has the gradients of LSQ (see `fake_quant`), so

    dL/dx   = dy * sum_i p_i [qmin_i <= x / s_i <= qmax_i]
    dL/dp_i = sum dy * Q_i(x)
    dL/ds_i = p_i * sum (dy * Q_i(x) - dy * [inside_i] * x) / s_i

Automatic differentiation would keep several tensors of the size of `x` for
each candidate. Here the backward pass computes them again, one candidate after
the other, and between the passes only `x` is kept.
"""

import functools

import keras
from keras import ops

from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.fake_quant import is_inside


def mix(x, scales, probabilities, ranges):
    """The mixture of quantizers with one scale per tensor.

    Args:
        x: float32 tensor of any shape.
        scales: positive float32 tensor of shape `(candidates,)`.
        probabilities: float32 tensor of shape `(candidates,)`.
        ranges: tuple with `(qmin, qmax)` of each candidate, integers; `None`
            for a candidate that leaves `x` as it is.

    Returns:
        A tensor of the shape of `x`, with gradients for all three tensors.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers.mix import mix
    >>> x = np.float32([0.2, 0.9])
    >>> y = mix(x, np.float32([1.0, 0.5]), np.float32([0.5, 0.5]),
    ...         ((0, 3), (0, 15)))
    >>> [float(v) for v in y]
    [0.0, 1.0]
    """
    x, scales, probabilities = (
        ops.convert_to_tensor(t, dtype="float32")
        for t in (x, scales, probabilities)
    )
    if keras.backend.backend() == "tensorflow":
        from keras_saq.quantizers import tensorflow_kernels as kernels

        tensors = [kernels.read(t) for t in (x, scales, probabilities)]
        if all(r is None or kernels.supports(*r) for r in ranges):
            return kernels.mix_per_tensor(*tensors, ranges)
        return _mixture(tuple(ranges))(*tensors)
    return _mixture(tuple(ranges))(x, scales, probabilities)


def mix_weights(x, scales, probabilities, ranges, signs):
    """The mixture with a scale per channel, by automatic differentiation.

    Weights are small: what is kept for each candidate is of their size.

    Args:
        x: float32 tensor.
        scales: list of tensors that broadcast against `x`, one per candidate.
        probabilities: tensor of shape `(candidates,)`.
        ranges: tuple with `(qmin, qmax)` of each candidate.
        signs: list of tensors like the scales, 1 or -1: where a candidate
            rounds the mirror image of `x`. `None`: nowhere.
    """
    total = 0.0
    for i, (scale, limits, sign) in enumerate(zip(scales, ranges, signs)):
        if sign is None:
            y = fake_quantize(x, scale, *limits)
        else:
            y = sign * fake_quantize(sign * x, scale, *limits)
        total += probabilities[i] * y
    return total


# JAX compiles once per function, so there is one for each set of candidates.
@functools.cache
def _mixture(ranges):
    @ops.custom_gradient
    def function(x, scales, probabilities):
        y = 0.0
        for i, limits in enumerate(ranges):
            y = y + probabilities[i] * _values(x, scales[i], limits)

        def gradient(*args, upstream=None):
            dy = args[0] if upstream is None else upstream
            inside, dscales, dprobabilities = 0.0, [], []
            for i, limits in enumerate(ranges):
                product = ops.sum(dy * _values(x, scales[i], limits))
                dprobabilities.append(product)
                mask = 1.0
                if limits is None:
                    dscales.append(ops.zeros_like(product))
                else:
                    low, high = limits[0] * scales[i], limits[1] * scales[i]
                    mask = ops.cast(is_inside(x, low, high), "float32")
                    slope = product - ops.sum(dy * mask * x)
                    dscales.append(probabilities[i] * slope / scales[i])
                inside = inside + probabilities[i] * mask
            return dy * inside, ops.stack(dscales), ops.stack(dprobabilities)

        return y, gradient

    return function


def _values(x, scale, limits):
    if limits is None:
        return x
    return ops.round(ops.clip(x / scale, *limits)) * scale
