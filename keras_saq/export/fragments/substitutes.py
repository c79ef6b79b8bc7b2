"""Functions of Keras's TensorFlow backend that LiteRT computes otherwise."""

import contextlib
import importlib

# The smallest normal float32.
_SMALLEST = 2.0**-126


def _rsqrt(x):
    """Huge at zero: XNNPACK's own result there is no number.

    As 1 / sqrt(x) the converter would make the same RSQRT of it.
    """
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    return tf.math.rsqrt(tf.maximum(x, tf.cast(_SMALLEST, x.dtype)))


# Module of the backend, function, and what takes its place.
_SUBSTITUTES = (("math", "rsqrt", _rsqrt),)


@contextlib.contextmanager
def substituted():
    """Inside, Keras's operations are written for LiteRT."""
    kept = []
    for module, name, function in _SUBSTITUTES:
        module = importlib.import_module(
            f"keras.src.backend.tensorflow.{module}"
        )
        kept.append((module, name, getattr(module, name)))
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)
