"""Initial scales from data. Plain NumPy: they run once, before training.

Each rule takes a float array of shape `(groups, elements)`, one row per
scale, and the code range, and returns one positive float32 scale per row.
"""

import numpy as np

# A group of zeros has no scale of its own; any positive one represents it.
_ZERO_GROUP_SCALE = 1e-3
_MSE_CANDIDATES = 64
_MSE_MAX_ELEMENTS = 1 << 16


def lsq(groups, qmin, qmax):
    """2 * mean|x| / sqrt(Qp), LSQ (arXiv 1902.08153) section 2.1."""
    return 2.0 * np.abs(groups).mean(axis=1) / np.sqrt(max(qmax, 1))


def minmax(groups, qmin, qmax):
    """The smallest scale that clips nothing."""
    high = np.maximum(groups.max(axis=1), 0.0) / qmax
    if qmin == 0:
        return high
    return np.maximum(high, np.minimum(groups.min(axis=1), 0.0) / qmin)


def mse(groups, qmin, qmax):
    """The clipping range with the least squared rounding error.

    A line search over fractions of the `minmax` range, the usual choice of
    post-training quantizers; LSQ's own rule assumes a distribution, this one
    only looks at the data.
    """
    if groups.shape[1] > _MSE_MAX_ELEMENTS:
        stride = -(-groups.shape[1] // _MSE_MAX_ELEMENTS)
        largest = minmax(groups, qmin, qmax)
        # An odd stride does not fall in step with the channel axis.
        groups = groups[:, :: stride | 1]
    else:
        largest = minmax(groups, qmin, qmax)
    best_scale, best_error = largest, np.full(largest.shape, np.inf)
    lowest = 0.1 if qmax > 7 else 0.05
    for fraction in np.linspace(1.0, lowest, _MSE_CANDIDATES):
        scale = np.maximum(largest * fraction, np.finfo(np.float32).tiny)
        codes = np.rint(np.clip(groups / scale[:, None], qmin, qmax))
        error = np.square(codes * scale[:, None] - groups).mean(axis=1)
        better = error < best_error
        best_scale = np.where(better, scale, best_scale)
        best_error = np.where(better, error, best_error)
    return best_scale


RULES = {"mse": mse, "lsq": lsq, "minmax": minmax}


def initial_scale(groups, qmin, qmax, rule="mse"):
    """Applies a rule and makes every scale positive and finite."""
    groups = np.asarray(groups, dtype=np.float64)
    if not np.isfinite(groups).all():
        raise ValueError(
            "The initial scale of a quantizer is taken from data, and the "
            "data must be finite. Received NaN or infinite values. Check the "
            "weights of the model and the calibration data."
        )
    scale = RULES[rule](groups, qmin, qmax)
    scale = np.where(scale > 0, scale, _ZERO_GROUP_SCALE)
    return np.clip(scale, 1e-12, 1e30).astype(np.float32)
