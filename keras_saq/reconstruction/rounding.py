"""Learned rounding: whether a weight goes up or down, as a number to train.

Source: AdaRound (Nagel et al., arXiv 2004.10568), equations 21 to 24. With the
scale s of a weight w, and a trained number v,

    W(v) = s * clip(floor(w / s) + h(v), qmin, qmax)
    h(v) = clip(1.2 * sigmoid(v) - 0.1, 0, 1)
    R(v) = sum 1 - |2 h(v) - 1|^b

R is what makes every h 0 or 1 in the end: after a fifth of the steps, in
which it is left out, b falls from 20, where R is flat, to 2.
"""

import numpy as np
from keras import ops

STRETCH, SHIFT = 1.2, 0.1
WARM_UP = 0.2
FIRST_EXPONENT, LAST_EXPONENT = 20.0, 2.0
# Of a step of the grid: how far a stored weight is from where it would be
# rounded to another code, at least.
_MARGIN = 0.05


def share_up(v):
    """h(v): how much of a step is added to the rounded-down weight.

    Example:

    >>> import numpy as np
    >>> from keras_saq.reconstruction.rounding import share_up
    >>> [float(h) for h in share_up(np.float32([-9.0, 0.0, 9.0]))]
    [0.0, 0.5, 1.0]
    """
    return ops.clip(STRETCH * ops.sigmoid(v) - SHIFT, 0.0, 1.0)


def initial(weight, scale):
    """The v at which W(v) is the weight itself, as a float32 array."""
    position = weight / scale
    rest = position - np.floor(position)
    return -np.log(STRETCH / (rest + SHIFT) - 1).astype("float32")


def soft_weight(weight, scale, v, qmin, qmax):
    """W(v); NumPy arrays and a tensor v make a tensor."""
    down = np.floor(weight / scale).astype("float32")
    return scale * ops.clip(down + share_up(v), qmin, qmax)


def regularizer(v, exponent):
    """R(v)."""
    return ops.sum(1.0 - ops.abs(2.0 * share_up(v) - 1.0) ** exponent)


def schedule(step, steps):
    """`(exponent b, weight of R)` at a step of training.

    Example:

    >>> from keras_saq.reconstruction.rounding import schedule
    >>> schedule(0, 100), schedule(20, 100), schedule(60, 100)
    ((20.0, 0.0), (20.0, 1.0), (11.0, 1.0))
    """
    start = WARM_UP * steps
    if step < start:
        return FIRST_EXPONENT, 0.0
    left = 1.0 - (step - start) / max(steps - start, 1e-9)
    return LAST_EXPONENT + (FIRST_EXPONENT - LAST_EXPONENT) * left, 1.0


def learned_codes(weight, scale, v, qmin, qmax):
    """The codes when every h is rounded to 0 or 1, as NumPy int32."""
    up = np.asarray(ops.convert_to_numpy(share_up(v))) >= 0.5
    return np.clip(np.floor(weight / scale) + up, qmin, qmax).astype("int32")


def stored_weight(weight, scale, codes):
    """The weight that is nearest to `weight` and has the given codes.

    Weights beyond the range stay where they are. Training can go on from it.
    """
    reach = 0.5 - _MARGIN
    position = np.clip(weight / scale, codes - reach, codes + reach)
    return (position * scale).astype("float32")
