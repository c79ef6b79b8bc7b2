"""Gives a model its variables back when a step of `fit` raises.

While `fit` runs on the JAX backend, Keras keeps the state of training outside
of the model's variables, which are empty. An exception (a bug in a loss, a
full memory, Ctrl-C) would leave them so.
"""

import contextlib

import keras


@contextlib.contextmanager
def recovery(model):
    """Inside, an exception leaves the state after the last whole step."""
    if keras.backend.backend() != "jax":
        yield
        return
    # Both only point to arrays; nothing is copied. An array that a step was
    # given for good is deleted, and then there is a state after that step.
    before = [(v, v.value) for v in _variables(model)]
    try:
        yield
    except BaseException:
        model.jax_state_sync()
        for variable, value in before:
            if variable._value is None and not value.is_deleted():
                variable._value = value
        raise


def _variables(model):
    optimizer = getattr(model, "optimizer", None)
    return [
        *model.variables,
        *model.metrics_variables,
        *(optimizer.variables if optimizer is not None else ()),
    ]
