"""A scope in which some variables read as other values, and only that."""

import keras
from keras.src.backend.common.variables import AutocastScope

from keras_saq.layers.perturbation import note_read


class Overlay(keras.StatelessScope):
    """Lets chosen variables read as given tensors.

    Every other read, and every update and loss, goes on to the scope outside
    (or to the variable itself where there is none), so that a layer runs
    inside as it would outside, on TensorFlow, JAX and torch, eager and traced.

    Args:
        values: list of `(variable, tensor)` pairs.
    """

    def __init__(self, values):
        super().__init__(initialize_variables=False)
        # Not `state_mapping`: that is also where updates are collected.
        self._overlaid = {id(variable): value for variable, value in values}

    def __enter__(self):
        super().__enter__()
        outer = self.original_scope
        if outer is not None:
            self.collect_losses = outer.collect_losses
            self.losses = outer.losses
        return self

    def get_current_value(self, variable):
        value = self._overlaid.get(id(variable))
        if value is not None:
            note_read(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update):
        if self.original_scope is not None:
            self.original_scope.add_update(update)
            return
        variable, value = update
        self.__exit__()
        try:
            variable.assign(value)
        finally:
            self.__enter__()


def read_uncast(variable):
    """The value of a variable in its own dtype, under any dtype policy."""
    with AutocastScope(None):
        return variable.value
