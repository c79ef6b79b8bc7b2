"""Weights in units of their standard deviation."""

from keras import ops

# Of values in [-1, 1]: below this, the deviation is only rounding.
_SMALLEST_DEVIATION = 1e-6
_SMALLEST_MAGNITUDE = 1e-30


def standardize(x, granularity):
    """(x - mean) / deviation, over the elements that share a scale.

    Mean and (unbiased) deviation count as constants: the gradient for `x` is
    1 / deviation. A constant tensor becomes zeros.

    Args:
        x: float32 tensor, after `granularity.split`.
        granularity: a `Granularity`.

    Returns:
        A tensor of the shape of `x`.
    """
    values = ops.stop_gradient(x)
    largest = granularity.reduce(ops.max, ops.abs(values))
    # The largest value is 1 from here on, so that no square overflows.
    largest = granularity.spread(ops.maximum(largest, _SMALLEST_MAGNITUDE))
    values = values / largest
    mean = granularity.spread(granularity.reduce(ops.mean, values))
    squares = ops.square(values - mean)
    ones = granularity.reduce(ops.sum, ops.ones_like(values))
    variance = granularity.reduce(ops.sum, squares) / ops.maximum(ones - 1, 1)
    deviation = ops.maximum(ops.sqrt(variance), _SMALLEST_DEVIATION)
    return (x / largest - mean) / granularity.spread(deviation)
