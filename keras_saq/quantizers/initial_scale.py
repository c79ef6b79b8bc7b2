"""Initial scales from data. Plain NumPy: they run once, before training.

Each rule takes a float array of shape `(groups, elements)`, one row per
scale, the code range and the distance of two codes, and returns one
non-negative scale per row.
"""

import difflib

import numpy as np

_NUM_CANDIDATES = {"mse": 64, "dobi": 100}
# Of a tensor with one scale, and of each row of many: so many elements are
# looked at by a search.
_MAX_SEARCHED = 1 << 16
_MAX_SEARCHED_PER_ROW = 1 << 13
# Elements that are worked on at a time: they stay in the processor's cache.
_BLOCK = 1 << 15
_PERCENTILE = 99.9
_SMALLEST, _LARGEST = 1e-12, 1e30
# Of more codes than this, the range is not made smaller for an error that is
# not smaller by this factor (3 dB).
_MANY_CODES = 200
_WORTH_CLIPPING = 2.0


def lsq(groups, qmin, qmax, step=1):
    """2 * mean|x| / sqrt(Qp), LSQ (arXiv 1902.08153) section 2.1."""
    mean = np.abs(groups).mean(axis=1, dtype="float64")
    return 2.0 * mean / np.sqrt(max(qmax, 1))


def three_sigma(groups, qmin, qmax, step=1):
    """max(|mean - 3 sd|, |mean + 3 sd|) / 2^(b-1), LSQ+ (arXiv 2004.09576)."""
    mean = groups.mean(axis=1, dtype="float64")
    deviation = groups.std(axis=1, dtype="float64")
    if qmin == 0:
        return np.maximum(mean + 3 * deviation, 0.0) / qmax
    largest = np.maximum(
        np.abs(mean - 3 * deviation), np.abs(mean + 3 * deviation)
    )
    return 2 * largest / (qmax - qmin + step)


def minmax(groups, qmin, qmax, step=1):
    """The smallest scale that clips nothing."""
    return _covering(groups.min(axis=1), groups.max(axis=1), qmin, qmax)


def percentile(groups, qmin, qmax, step=1):
    """The smallest scale that clips 0.1 % at either end."""
    low, high = np.percentile(groups, [100 - _PERCENTILE, _PERCENTILE], axis=1)
    scale = _covering(low, high, qmin, qmax)
    # All but a few values are zero: those few are what there is to represent.
    return np.where(scale > 0, scale, minmax(groups, qmin, qmax))


def mse(groups, qmin, qmax, step=1):
    """The clipping range with the least squared rounding error.

    A line search over fractions of the `minmax` range, the usual choice of
    post-training quantizers; LSQ's own rule assumes a distribution, this one
    only looks at the data.
    """
    lowest = 0.1 if qmax > 7 else 0.05
    fractions = np.linspace(1.0, lowest, _NUM_CANDIDATES["mse"])
    # With codes of 8 bits, clipping a tensor gains next to nothing by this
    # measure, and costs its largest elements: it has to be worth it.
    granted = 1.0
    if len(groups) == 1 and qmax - qmin > _MANY_CODES:
        granted = _WORTH_CLIPPING
    return _least_error(groups, qmin, qmax, step, fractions, granted)


def dobi(groups, qmin, qmax, step=1):
    """Distribution-oriented bounds of 2DQuant (arXiv 2406.06649).

    A hundred times, the range shrinks by a hundredth of itself, almost to
    nothing, and that with the least squared error is kept. Bounds around zero
    shrink from both ends, one-sided ones from above, as in the released code.
    """
    count = _NUM_CANDIDATES["dobi"]
    shrunk = np.arange(count) / count
    return _least_error(groups, qmin, qmax, step, 1.0 - shrunk)


RULES = {
    "mse": mse,
    "lsq": lsq,
    "minmax": minmax,
    "percentile": percentile,
    "dobi": dobi,
    "three_sigma": three_sigma,
}


def bounds(groups, num_codes, rule="mse"):
    """Initial ends of a range of `num_codes` values, where both are free.

    Args:
        groups: array of shape (groups, elements).
        num_codes: number of values on the grid, both ends included.
        rule: `"mse"`, `"dobi"`, `"minmax"` or `"percentile"`. The first two
            shrink the range as far as that makes the squared error smaller;
            a range that is on one side of zero shrinks from the other end.

    Returns:
        Two arrays of shape (groups,).
    """
    groups = np.asarray(groups)
    check_finite(groups)
    groups = _as_float(groups)
    low, high = (
        end.astype("float64")
        for end in (groups.min(axis=1), groups.max(axis=1))
    )
    if rule == "minmax":
        return low, high
    if rule == "percentile":
        return np.percentile(groups, [100 - _PERCENTILE, _PERCENTILE], axis=1)
    groups = _sample(groups)
    best_low, best_high = low, high
    best_error = np.full(low.shape, np.inf)
    lowest = 0.1 if rule == "mse" else 0.0
    # What is not on both sides of zero shrinks from one end, as far in all.
    ends = np.where((low < 0) & (high > 0), 2, 1)
    for i in range(_NUM_CANDIDATES[rule]):
        cut = (high - low) * i * (1 - lowest) / (ends * _NUM_CANDIDATES[rule])
        a = np.where(low >= 0, low, low + cut)
        b = np.where(high <= 0, high, high - cut)
        scale = np.maximum((b - a) / (num_codes - 1), np.finfo("float32").tiny)
        codes = np.clip(
            (groups - a[:, None]) / scale[:, None], 0, num_codes - 1
        )
        values = np.rint(codes) * scale[:, None] + a[:, None]
        error = np.square(values - groups).mean(axis=1)
        better = error < best_error
        best_low = np.where(better, a, best_low)
        best_high = np.where(better, b, best_high)
        best_error = np.where(better, error, best_error)
    return best_low, best_high


def check_rule(rule, known=tuple(sorted(RULES))):
    """Returns the name of a rule, or raises with a suggestion."""
    if rule in known:
        return rule
    close = difflib.get_close_matches(str(rule), known, 1)
    raise ValueError(
        f"`initial_scale` must be one of {list(known)}. "
        f"Received: initial_scale={rule!r}."
        + (f" Did you mean {close[0]!r}?" if close else "")
    )


def check_finite(array):
    """Raises if data holds NaN or infinite values."""
    if not np.isfinite(_as_float(np.asarray(array))).all():
        raise ValueError(
            "The initial scale of a quantizer is taken from data, and the "
            "data must be finite. Received NaN or infinite values. Check the "
            "weights of the model and the calibration data."
        )


def initial_scale(groups, qmin, qmax, rule="mse", step=1):
    """Applies a rule and makes every scale positive and finite.

    Args:
        groups: array of shape (groups, elements).
        qmin: smallest code.
        qmax: largest code.
        rule: a key of `RULES`.
        step: distance of neighbouring codes, 1 unless there is no zero.

    Returns:
        Array of shape (groups,), float32. A group of zeros, as standardized
        constants are, has a range up to 1.
    """
    groups = np.asarray(groups)
    check_finite(groups)
    groups = _as_float(groups)
    scale = RULES[rule](groups, qmin, qmax, step)
    scale = np.where(scale > 0, scale, 1.0 / max(qmax, 1))
    return np.clip(scale, _SMALLEST, _LARGEST).astype(np.float32)


def oriented_scale(rows, qmin, qmax, rule="mse"):
    """Scales and signs of rows that are rounded as they are, or mirrored.

    Args:
        rows: array, one row of elements per scale.
        qmin: smallest code.
        qmax: largest code.
        rule: see `initial_scale`.

    Returns:
        `(scale, sign)`, float32 arrays with an element per row; the sign is
        that of the two with which the row is rounded with less error.
    """
    scales = [initial_scale(sign * rows, qmin, qmax, rule) for sign in (1, -1)]
    errors = [
        rounding_error(sign * rows, scale, qmin, qmax)
        for sign, scale in zip((1, -1), scales)
    ]
    is_plain = errors[0] <= errors[1]
    sign = np.where(is_plain, 1.0, -1.0).astype("float32")
    return np.where(is_plain, *scales), sign


def rounding_error(groups, scale, qmin, qmax):
    """The squared error of each row of a group, of some of its elements."""
    groups = _sample(_as_float(np.asarray(groups)))
    codes = np.clip(np.rint(groups / scale[:, None]), qmin, qmax)
    return np.square(codes * scale[:, None] - groups).mean(axis=1)


def _as_float(array):
    """Float32 or float64 as it is, everything else as float32."""
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.float32)


def _covering(low, high, qmin, qmax):
    scale = np.maximum(high, 0.0) / qmax
    if qmin == 0:
        return scale
    return np.maximum(scale, np.minimum(low, 0.0) / qmin)


def _sample(groups):
    rows, elements = groups.shape
    limit = _MAX_SEARCHED if rows == 1 else _MAX_SEARCHED_PER_ROW
    if elements <= limit:
        return groups
    stride = -(-elements // limit)
    # An odd stride does not fall in step with the channel axis.
    return groups[:, :: stride | 1]


def _least_error(groups, qmin, qmax, step, fractions, granted=1.0):
    """The part of the `minmax` scale that rounds with the least error.

    The whole of it, where its error is at most `granted` times the least.
    """
    largest = minmax(groups, qmin, qmax)
    groups = _sample(groups)
    found = np.empty(largest.shape, np.float32)
    size = max(1, _BLOCK // max(groups.shape[1], 1))
    for start in range(0, len(groups), size):
        rows = slice(start, start + size)
        found[rows] = _search(
            groups[rows], largest[rows], qmin, qmax, step, fractions, granted
        )
    return largest * found


def _search(groups, largest, qmin, qmax, step, fractions, granted):
    """The best of `fractions` for each row, in units of `largest`."""
    unit = np.where(largest > 0, largest, 1.0)[:, None]
    # Codes, if nothing is clipped. What is beyond costs the same everywhere.
    exact = np.clip(groups / unit, qmin, qmax, dtype=np.float32)
    codes = np.empty_like(exact)
    best = np.full(len(exact), fractions[0], np.float32)
    least = np.full(len(exact), np.inf, np.float32)
    first = None
    for fraction in np.asarray(fractions, np.float32):
        np.multiply(exact, 1 / fraction, out=codes)
        if step != 1:
            codes -= qmin
            codes /= step
        np.rint(codes, out=codes)
        if step != 1:
            codes *= step
            codes += qmin
        np.clip(codes, qmin, qmax, out=codes)
        codes *= fraction
        codes -= exact
        error = np.einsum("ij,ij->i", codes, codes)
        better = error < least
        best[better] = fraction
        np.minimum(least, error, out=least)
        if first is None:
            first = error
    return np.where(first <= granted * least, fractions[0], best)
