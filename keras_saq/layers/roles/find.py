"""Finds the row of a layer or operation in the table of operations."""

import functools

from keras import layers

from keras_saq.layers.hidden import float_class
from keras_saq.layers.operation import OperationLayer
from keras_saq.layers.roles.role import Role
from keras_saq.layers.roles.role import no_weights
from keras_saq.layers.roles.table import LAYERS
from keras_saq.layers.roles.table import OPERATIONS

# What a subclass can have of its own and still compute what its parent does.
_HARMLESS = {
    "add_weight",
    "build",
    "build_from_config",
    "call_has_training_arg",
    "compute_dtype",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}


def unwrap(operation):
    """The Keras operation that an `OperationLayer` calls; else itself.

    >>> import keras
    >>> from keras_saq.layers import roles
    >>> from keras_saq.layers.operation import OperationLayer
    >>> x = keras.Input((4,))
    >>> add = (x + x)._keras_history.operation
    >>> roles.unwrap(OperationLayer(add)) is roles.unwrap(add) is add
    True
    """
    if isinstance(operation, OperationLayer):
        return operation.operation
    return operation


def find(operation):
    """The `Role` of a layer or operation; `None` for somebody's own.

    A layer class has the role of the class that it derives from, if it
    computes the same: a subclass with a `call` of its own, or with any other
    method of its parent's made anew, is somebody's own layer. Of its parent
    it keeps the weights that are quantized. A quantized look-alike has the
    role of its float class.

    Args:
        operation: a layer, or another Keras operation.

    Example:

    >>> import keras
    >>> from keras_saq.layers import roles
    >>> roles.find(keras.layers.Dropout(0.5)).family
    'identity'
    >>> class Halved(keras.layers.Dropout):
    ...     def call(self, inputs, training=False):
    ...         return inputs / 2
    >>> roles.find(Halved(0.5)) is None
    True
    """
    operation = unwrap(operation)
    if not isinstance(operation, layers.Layer):
        return _of_operation(type(operation))
    row = _row(type(operation))
    return row(operation) if callable(row) else row


def of_class(layer_class):
    """The `Role` of a layer class; `None` where it depends on the layer."""
    row = _row(layer_class)
    return row if isinstance(row, Role) else None


def family(operation):
    """The family of a layer or operation, `None` for somebody's own."""
    role = find(operation)
    return None if role is None else role.family


def _of_operation(operation_class):
    if not operation_class.__module__.startswith("keras."):
        return None
    return OPERATIONS.get(operation_class.__name__)


@functools.cache
def _row(layer_class):
    own = set()
    for each in float_class(layer_class).__mro__:
        if each in LAYERS:
            changed = any(hasattr(each, name) for name in own)
            return _of_own_kernel(LAYERS[each]) if changed else LAYERS[each]
        own.update(name for name in vars(each) if _is_meant(name))
    return None


def _of_own_kernel(row):
    """Role of a subclass that computes with its parent's weights itself."""
    if not isinstance(row, Role) or row.weights is no_weights:
        return None
    return Role(
        "own_kernel", weights=row.weights, reads_indices=row.reads_indices
    )


def _is_meant(name):
    """Whether an attribute of a class can change what a layer computes."""
    if name.startswith("__"):
        return name == "__call__"
    return name not in _HARMLESS and not name.startswith(("_api_", "_tf_"))
