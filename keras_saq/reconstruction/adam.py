"""Adam on tensors, which Keras's optimizers only do on variables."""

from keras import ops

_BETAS = 0.9, 0.999
_TINY = 1e-8


def adam(point, mean, square, gradient, count, rate):
    """One step of Adam (arXiv 1412.6980, algorithm 1).

    Args:
        point: tensor.
        mean: running mean of gradients, at first zero.
        square: running mean of their squares, at first zero.
        gradient: tensor.
        count: number of this step, from 1.
        rate: learning rate.

    Returns:
        The new `(point, mean, square)`.

    Example, the first step, which is as long as the rate:

    >>> import numpy as np
    >>> from keras_saq.reconstruction.adam import adam
    >>> zero = np.float32(0)
    >>> point, *_ = adam(np.float32(1), zero, zero, np.float32(5), 1, 0.25)
    >>> round(float(point), 4)
    0.75
    """
    mean = _BETAS[0] * mean + (1 - _BETAS[0]) * gradient
    square = _BETAS[1] * square + (1 - _BETAS[1]) * ops.square(gradient)
    root = ops.sqrt(square / (1 - _BETAS[1] ** count))
    change = mean / (1 - _BETAS[0] ** count) / (root + _TINY)
    return point - rate * change, mean, square
