"""A scope in which nothing that is called gets compiled."""

import contextlib

import keras


@contextlib.contextmanager
def eagerly():
    """Inside, a `tf.function` in somebody's `call` is not traced.

    A trace is kept, with whatever was switched off while it was made.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    previous = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(previous)
