"""Functions of Keras's TensorFlow backend that LiteRT computes otherwise."""

import contextlib
import importlib


def _rsqrt(x):
    """1 / sqrt(x): XNNPACK's RSQRT of zero is no number."""
    import tensorflow as tf

    return 1.0 / tf.math.sqrt(tf.convert_to_tensor(x))


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
