"""A scope in which quantizers without a scale take one from what they see."""

import contextlib
import threading

_state = threading.local()


def is_calibrating():
    return getattr(_state, "active", False)


@contextlib.contextmanager
def calibration_scope():
    """Inside, each uncalibrated quantizer initialises from its next input.

    Eager execution only: the scale is assigned while the layer is called.
    """
    previous = is_calibrating()
    _state.active = True
    try:
        yield
    finally:
        _state.active = previous
