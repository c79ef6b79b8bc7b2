"""A scope in which quantizers without a scale take one from what they see."""

import contextlib
import threading

import numpy as np

# As many elements of a tensor are kept.
_MOST = 1 << 18
_state = threading.local()


def is_calibrating():
    """Whether this thread is inside of a `calibration_scope`.

    Example:

    >>> from keras_saq.quantizers import calibration_scope, is_calibrating
    >>> with calibration_scope():
    ...     print(is_calibrating())
    True
    """
    return bool(getattr(_state, "active", False))


def function_behind(quantizer):
    """The function that reads what a quantizer makes, or `None`."""
    return (getattr(_state, "behind", None) or {}).get(id(quantizer))


def all_seen(quantizer, x):
    """What a quantizer has seen in this scope, if it sees several tensors.

    Args:
        quantizer: a quantizer of tensors.
        x: the tensor that it sees now.

    Returns:
        One float32 array of all of it, or `None` where `x` is all there is to
        see, or more than a scale needs.
    """
    seen = (getattr(_state, "several", None) or {}).get(id(quantizer))
    if seen is None:
        return None
    x = np.asarray(x, "float32").reshape(-1)
    if x.size > _MOST:
        ends = np.array([x.min(), x.max()])
        x = np.concatenate([x[:: -(-x.size // _MOST)], ends])
    seen.append(x)
    return np.concatenate(seen)


@contextlib.contextmanager
def calibration_scope(behind=None, several=()):
    """Inside, each uncalibrated quantizer initialises from its next input.

    Eager execution only: the scale is assigned while the layer is called.

    Args:
        behind: dict from `id` of a quantizer to the function of a tensor by
            whose error its scale is chosen.
        several: ids of quantizers that see several tensors: of a layer that is
            called more than once. Their scales are taken from all of them.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers import LSQ, calibration_scope
    >>> quantizer = LSQ(8)
    >>> with calibration_scope():
    ...     _ = quantizer(np.float32([-1.0, 1.0]))
    >>> quantizer.calibrated
    True
    """
    names = ("active", "behind", "several")
    previous = [getattr(_state, name, None) for name in names]
    _state.active, _state.behind = True, behind or {}
    _state.several = {number: [] for number in several}
    try:
        yield
    finally:
        for name, value in zip(names, previous):
            setattr(_state, name, value)
