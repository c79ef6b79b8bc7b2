"""A scale that is chosen by the error behind the function that reads it.

Logits in front of a softmax, and what a sigmoid, a tanh or a GELU reads, have
far ends that the function makes equal. A grid that reaches there is too coarse
where the function has its slope: one logit of -400 gives all others a step of
3. So the error that counts is that of the function's output,

    s = argmin mean (f(Q_s(x)) - f(x))^2

over scales from the one that clips nothing down to 2^-14 of it, in half
octaves, and then in sixteenths around the best.
"""

import numpy as np
from keras import ops

from keras_saq.quantizers.initial_scale import minmax

_OCTAVES = 14
# Elements that are looked at.
_MOST = 1 << 17


def scale_behind(x, function, qmin, qmax, scale):
    """The scale with the least squared error of `function(x)`.

    Args:
        x: float32 array; its first axis is that of the samples.
        function: of a tensor, that is called eagerly.
        qmin: smallest code.
        qmax: largest code.
        scale: what the error in front of the function says; kept where
            nothing is better.

    Returns:
        A float.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_saq.quantizers.behind import scale_behind
    >>> x = np.linspace(-2, 2, 99, dtype="float32")
    >>> x[0] = -400
    >>> bool(scale_behind(x, keras.ops.sigmoid, -128, 127, 3.0) < 0.1)
    True
    """
    x = _sample(np.asarray(x, np.float32))
    exact = _values(function, x)
    if not np.isfinite(exact).all():
        return float(scale)
    largest = float(minmax(x.reshape(1, -1), qmin, qmax)[0])
    best = float(scale)
    # Another scale has to earn it.
    least = 0.98 * _error(function, x, exact, best, qmin, qmax)
    coarse = largest * 2.0 ** (-np.arange(2 * _OCTAVES + 1) / 2)
    for step in (None, 1 / 8, 1 / 16):
        candidates = coarse
        if step is not None:
            candidates = best * 2.0 ** (step * np.array([-2, -1, 1, 2]))
        for candidate in candidates:
            error = _error(function, x, exact, candidate, qmin, qmax)
            if error < least:
                best, least = float(candidate), error
    return best


def _error(function, x, exact, scale, qmin, qmax):
    scale = np.float32(scale)
    rounded = np.clip(np.rint(x / scale), qmin, qmax) * scale
    error = _values(function, rounded.astype(np.float32)) - exact
    error = error.reshape(-1)
    return float(error @ error) / max(error.size, 1)


def _values(function, x):
    made = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
    return made.astype(np.float32, copy=False)


def _sample(x):
    """Whole samples, since some functions look at more than one element."""
    if x.ndim == 0 or x.size <= _MOST:
        return x
    count = max(1, _MOST // max(x[0].size, 1))
    return x[:: -(-len(x) // count)]
