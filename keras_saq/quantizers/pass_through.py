"""A scope in which quantized layers compute in float, bit for bit."""

import contextlib
import threading

_state = threading.local()


def is_passing_through():
    """Whether this thread is inside of a `pass_through_scope`.

    Example:

    >>> from keras_saq.quantizers import is_passing_through
    >>> is_passing_through()
    False
    """
    return getattr(_state, "active", False)


@contextlib.contextmanager
def pass_through_scope(active=True):
    """Inside, quantized layers do what their float classes do.

    No tensor and no weight is quantized, no bias is rounded, and what is
    computed in another way so that it can be quantized (batch norms, attention,
    separable convolutions) is computed as Keras does it. So a quantized model
    computes, to the last bit, what the float model with its weights does.

    Eager execution only: a traced function would keep what it was traced with.

    Args:
        active: `False` quantizes again, inside of another such scope.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.quantizers import pass_through_scope
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> q = keras_saq.quantize_model(model, "w2a8")
    >>> x = np.eye(4, dtype="float32")
    >>> with pass_through_scope():
    ...     bool(np.array_equal(q(x), model(x)))
    True
    """
    previous = is_passing_through()
    _state.active = active
    try:
        yield
    finally:
        _state.active = previous
