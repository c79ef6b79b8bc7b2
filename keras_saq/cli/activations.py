"""What the outputs of a model come out of."""

import contextlib

import keras

from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.models.wrapper import inner_model

_NAMES = ("softmax", "sigmoid")


def last_activation(model, input_shape=None):
    """`"softmax"`, `"sigmoid"` or `""`: what a model's output comes out of.

    Args:
        model: a Keras model.
        input_shape: of one sample; of a class of its own that says nothing
            about its inputs. By default what it was built with.
    """
    model = inner_model(model)
    outputs = getattr(model, "outputs", None)
    if outputs:
        return _behind(outputs[0])
    if input_shape is None:
        input_shape = _built_shape(model)
    if input_shape is None:
        return _of_layers(model)
    inputs = keras.Input(tuple(input_shape))
    with _nodes_restored(model):
        return _inside(model, (inputs,), {})


def _behind(tensor):
    """The activation that made a symbolic tensor."""
    while True:
        operation, node, _ = tensor._keras_history
        if getattr(operation, "outputs", None) and isinstance(
            operation, keras.Model
        ):
            tensor = operation.outputs[0]
            continue
        name = _own(operation)
        if name:
            return name
        node = operation._inbound_nodes[node]
        if _is_own_class(operation):
            given = node.arguments
            with _nodes_restored(operation):
                return _inside(operation, given.args, given.kwargs)
        if not roles.keeps_grid(operation) or not node.input_tensors:
            return ""
        tensor = node.input_tensors[0]


def _inside(layer, args, kwargs):
    """The activation at the end of a layer's `call`."""
    try:
        # Not `layer(...)`: its output would tell of the layer alone.
        outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        return _behind(outputs[0])
    except Exception:
        # `call` has something that takes no symbolic tensors.
        return _of_layers(layer)


def _of_layers(layer):
    """That of the last layer that computes, as they are declared."""
    within = set()
    found = ""
    for part in layer._flatten_layers(include_self=False):
        if id(part) in within:
            continue
        if _is_one_step(part):
            within.update(map(id, part._flatten_layers(include_self=False)))
        elif list(part._flatten_layers(include_self=False, recursive=False)):
            continue
        name = _own(part)
        if name or part.weights or isinstance(part, keras.layers.Activation):
            found = name
    return found


def _is_one_step(layer):
    """Whether what is inside of a layer is none of the model's own steps."""
    return isinstance(layer, Quantized) or (
        type(layer).__module__.startswith(("keras.", "keras_saq."))
        and not isinstance(layer, keras.Model)
    )


def _is_own_class(operation):
    return (
        isinstance(operation, keras.Layer)
        and not _is_one_step(operation)
        and bool(
            list(operation._flatten_layers(include_self=False, recursive=False))
        )
    )


@contextlib.contextmanager
def _nodes_restored(layer):
    """Lets layers forget that they were called in between."""
    layers = list(layer._flatten_layers())
    before = [
        (x, len(x._inbound_nodes), len(x._outbound_nodes)) for x in layers
    ]
    try:
        yield
    finally:
        for part, inbound, outbound in before:
            del part._inbound_nodes[inbound:]
            del part._outbound_nodes[outbound:]


def _built_shape(model):
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    shape = shapes.get("input_shape")
    return shape[1:] if isinstance(shape, (tuple, list)) else None


def _own(operation):
    name = roles.function_name(operation)
    if roles.find(operation) is None:
        # Somebody's own layer, by what it says of itself.
        name = getattr(roles.function_of(operation), "__name__", None)
    return name if name in _NAMES else ""
