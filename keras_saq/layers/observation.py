"""A scope that is told what each quantized layer was given and made."""

import contextlib
import threading

_state = threading.local()


def observer():
    """The innermost observer of this thread, or `None`."""
    return getattr(_state, "observer", None)


@contextlib.contextmanager
def observed_by(new):
    """Inside, `new` is called after each call of a quantized layer.

    Args:
        new: function of the layer, the arguments of its `call` as a tuple and
            a dict, and what it returned; or `None` to be left alone.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.layers.observation import observed_by
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> q = keras_saq.quantize_model(model, "w4")
    >>> with observed_by(lambda layer, args, kwargs, made: print(made.shape)):
    ...     _ = q(np.eye(4, dtype="float32"))
    (4, 3)
    """
    previous = observer()
    _state.observer = new
    try:
        yield
    finally:
        _state.observer = previous
