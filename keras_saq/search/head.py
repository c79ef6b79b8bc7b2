"""The float model on a proxy: a head for its classes, and some adaptation."""

import keras

from keras_saq.models.bits import next_to_outputs
from keras_saq.models.copy import copy_variables
from keras_saq.models.graph import Graph
from keras_saq.models.graph import is_plain_graph_model

_HEADS = (keras.layers.Dense, keras.layers.Conv2D)
_SIZES = {keras.layers.Dense: "units", keras.layers.Conv2D: "filters"}


def last_layer(model):
    """The last layer with weights."""
    graph = Graph(model)
    last = next_to_outputs(graph)
    return [s.operation for s in graph.sites if id(s.operation) in last][-1]


def is_normalized(model):
    """Whether the model's outputs are probabilities, behind a softmax."""
    graph = Graph(model)
    if len(graph.outputs) != 1 or graph.outputs[0].producer is None:
        return False
    layer = graph.outputs[0].producer.operation
    activation = getattr(layer, "activation", None)
    return (
        isinstance(layer, keras.layers.Softmax)
        or activation is keras.activations.softmax
        or type(layer).__name__ == "Softmax"
    )


def with_classes(model, num_classes):
    """A copy of a classifier with another number of classes.

    The last layer is new, with random weights and the old name; everything
    else is copied with its weights.

    Args:
        model: a Functional or Sequential model whose last layer with weights
            is a Dense or a 1x1 convolution of it.
        num_classes: number of outputs.

    Returns:
        A new model.

    Raises:
        ValueError: if the last layer cannot be replaced.
    """
    head = last_layer(model)
    if not is_plain_graph_model(model) or head not in model.layers:
        raise ValueError(
            f"The proxy has {num_classes} classes and the model "
            f"'{model.name}' has others. A temporary head can be put on "
            "Functional and Sequential models whose last layer with weights "
            f"is one of `model.layers`. Received: {type(model).__name__}, "
            f"whose last layer is '{head.name}'. Pass a copy of the model "
            "with a head for the proxy's classes as `proxy_model=`; its "
            "layers must have the paths of the model's."
        )
    size = next((s for c, s in _SIZES.items() if isinstance(head, c)), None)
    if size is None:
        raise ValueError(
            "A temporary head takes the place of a Dense or Conv2D layer. "
            f"The last layer with weights is '{head.name}' of type "
            f"{type(head).__name__}. Pass `proxy_model=`."
        )

    def copy(layer):
        config = layer.get_config()
        if layer is head:
            config[size] = num_classes
        return type(layer).from_config(config)

    compiled, model.compiled = model.compiled, False  # the copy is not
    try:
        clone = keras.models.clone_model(model, clone_function=copy)
    finally:
        model.compiled = compiled
    for layer in model.layers:
        if layer is not head:
            copy_variables(layer, clone.get_layer(layer.name))
    return clone


def num_outputs(model):
    """Number of classes of a classifier."""
    return int(keras.tree.flatten(model.outputs)[0].shape[-1])
