"""The unit in which a file, the reference and the model are compared."""

import numpy as np

# Islands are float kernels; theirs and NumPy's exponential differ by this.
_ISLAND_TOLERANCE = 1e-5


def step_of(scale):
    """The unit of differences: 8 bits of [0, 1] for a float island."""
    return 1.0 / 256 if scale is None else float(scale)


def tolerance_of(scale):
    """Steps that are no difference."""
    return 0.0 if scale is not None else _ISLAND_TOLERANCE / step_of(None)


def in_steps(a, b, scale):
    """Absolute differences in steps.

    Both come as float: integers times the scale, whose quotient is an integer
    again but for the last bit of float32, which is rounded away.
    """
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    step = step_of(scale)
    if scale is None:
        # What float kernels miss is relative to the size of what they add.
        step *= max(1.0, float(np.abs(b).max(initial=0.0)))
    return (difference / step).round(3)
