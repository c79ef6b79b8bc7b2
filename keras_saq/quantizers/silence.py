"""Scales of what is all zero when they are to be taken from it.

A zero-initialised head, the gamma of a residual branch, a ReLU that is dead on
the sample, a blank image, a channel that training has given up: such elements
are *silent*, and say nothing about their scale. They get one as if they held
numbers of a typical size (`stand_in`), so that it is neither so small that
the first step of training is clipped, nor so small that a kernel refuses it.

In training a silent scale *listens*: with the first numbers that are not zero
it takes its range from them, and follows them while they grow, clipping
nothing, for `PATIENCE` steps. From then on it is trained like any other. What
it follows is not trained, and is state that is saved (see `LearnedScale`).
"""

import numpy as np
from keras import ops

# Steps of training for which a scale follows what was silent.
PATIENCE = 1000.0
# Per step: an old maximum is forgotten as slowly.
FORGETTING = 0.01
# What is smaller than this part of the typical size is no signal: below one
# step of the accumulator of a kernel with codes of 8 bits.
_AUDIBLE = 2.0**-14
# Of numbers as small as these a scale cannot be divided by.
_NOTHING = 2.0**-100
# In training: log of a part of the stand-in's scale.
_LOG_AUDIBLE = np.log(_AUDIBLE)
# Of weights, which a batch norm behind them can make larger.
_AUDIBLE_CHANNEL = 2.0**-20


def find_silent(rows, signed, typical=None):
    """Which rows hold no signal.

    Args:
        rows: float array, one row of elements per scale.
        signed: `False` where only numbers above zero count.
        typical: how large a number would usually be; `None` if unknown.

    Returns:
        Boolean array, one value per row.
    """
    largest = rows.max(axis=1)
    if signed is not False:
        largest = np.maximum(largest, -rows.min(axis=1))
    if typical is None:
        return largest <= _NOTHING
    audible = _AUDIBLE if len(rows) == 1 else _AUDIBLE_CHANNEL
    return largest <= max(typical * audible, _NOTHING)


def stand_in(rows, silent, signed, typical=None):
    """The rows, with numbers of a typical size where they are silent.

    Beside other rows, their typical size counts.
    """
    if not silent.all():
        typical = float(np.median(np.abs(rows[~silent]).max(axis=1)))
    elif typical is None:
        typical = 1.0
    low = 0.0 if signed is False else -1.0
    # A range has two ends.
    filled = np.repeat(rows, 2, axis=1) if rows.shape[1] == 1 else rows.copy()
    filled[silent] = np.linspace(low, 1.0, filled.shape[1]) * typical
    return filled


def scale_of(granularity, x, qmax, signed):
    """The scale that a tensor asks for, in training.

    The range, and where there are few codes not the tails of it, as LSQ has
    it: 2 * mean|x| / sqrt(qmax), the mean over what is not zero.

    Args:
        granularity: a `Granularity`.
        x: tensor, after `granularity.split`.
        qmax: largest code.
        signed: `False` where only numbers above zero count.
    """
    x = ops.maximum(x, 0.0) if signed is False else ops.abs(x)
    scale = granularity.reduce(ops.max, x) / qmax
    if qmax > 7:
        return scale
    count = granularity.reduce(ops.sum, ops.cast(x > 0, "float32"))
    mean = granularity.reduce(ops.sum, x) / ops.maximum(count, 1.0)
    return ops.minimum(scale, 2.0 * mean / np.sqrt(qmax))


def listen(log_growth, steps_left, wanted):
    """The next state of scales that may be listening.

    Args:
        log_growth: tensor, the factor on the scale, as its logarithm.
        steps_left: tensor: how many steps it will still follow; 0 for what
            never was silent.
        wanted: tensor: the `log_growth` that the data ask for.

    Returns:
        The new `(log_growth, steps_left)`.
    """
    heard = ops.logical_and(steps_left > 0, wanted > _LOG_AUDIBLE)
    is_first = steps_left >= PATIENCE
    followed = ops.maximum(wanted, log_growth - FORGETTING)
    followed = ops.where(is_first, wanted, followed)
    return (
        ops.where(heard, followed, log_growth),
        ops.where(heard, steps_left - 1.0, steps_left),
    )
