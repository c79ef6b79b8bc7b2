"""A scope in which quantizers without a scale take one from what they see."""

import contextlib
import threading

_state = threading.local()


def is_calibrating():
    """Whether this thread is inside of a `calibration_scope`.

    Example:

    >>> from keras_saq.quantizers import calibration_scope, is_calibrating
    >>> with calibration_scope():
    ...     print(is_calibrating())
    True
    """
    return getattr(_state, "active", False)


def function_behind(quantizer):
    """The function that reads what a quantizer makes, or `None`."""
    return getattr(_state, "behind", {}).get(id(quantizer))


@contextlib.contextmanager
def calibration_scope(behind=None):
    """Inside, each uncalibrated quantizer initialises from its next input.

    Eager execution only: the scale is assigned while the layer is called.

    Args:
        behind: dict from `id` of a quantizer to the function of a tensor by
            whose error its scale is chosen.

    Example:

    >>> import numpy as np
    >>> from keras_saq.quantizers import LSQ, calibration_scope
    >>> quantizer = LSQ(8)
    >>> with calibration_scope():
    ...     _ = quantizer(np.float32([-1.0, 1.0]))
    >>> quantizer.calibrated
    True
    """
    previous = is_calibrating(), getattr(_state, "behind", {})
    _state.active, _state.behind = True, behind or {}
    try:
        yield
    finally:
        _state.active, _state.behind = previous
