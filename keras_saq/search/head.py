"""The float model on a proxy: a head for its classes, and some adaptation."""

import keras

from keras_saq.layers import roles
from keras_saq.models.bits import next_to_outputs
from keras_saq.models.copy import GraphCopy
from keras_saq.models.copy import copy_variables
from keras_saq.models.graph import Graph
from keras_saq.models.graph import is_plain_graph_model

# The attribute that says how many outputs there are.
_SIZES = {"dense": "units", "conv": "filters"}


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
    return roles.function_name(layer) == "softmax"


def with_classes(model, num_classes):
    """A copy of a classifier with another number of classes.

    The last layer is new, with random weights and the old name; everything
    else is copied with its weights.

    Args:
        model: a Functional or Sequential model whose last layer with weights
            is a Dense or convolution, at any depth of such models.
        num_classes: number of outputs.

    Returns:
        A new model.

    Raises:
        ValueError: if the last layer cannot be replaced.
    """
    head = last_layer(model)
    size = _SIZES.get(roles.family(head))
    if size is None or not is_plain_graph_model(model):
        raise ValueError(
            f"The proxy has {num_classes} classes and the model "
            f"'{model.name}' has others. A temporary head can be put on "
            "Functional and Sequential models that end in a Dense layer or a "
            f"convolution. Received: {type(model).__name__}, whose last layer "
            f"with weights is '{head.name}' of type {type(head).__name__}. "
            "Pass a copy of the model with a head for the proxy's classes as "
            "`proxy_model=`; its layers must have the paths of the model's."
        )
    copy = _WithHead(head, {size: num_classes})
    clone = copy.run(model)
    if not copy.found:
        raise ValueError(
            f"The last layer with weights, '{head.name}', is made inside of "
            "another layer, where it cannot be replaced. Pass `proxy_model=`."
        )
    return clone


class _WithHead(GraphCopy):
    """A copy in which one layer is new."""

    def __init__(self, head, changes):
        super().__init__()
        self._head, self._changes = head, changes
        self.found = False

    def make(self, operation):
        if operation is not self._head:
            return super().make(operation)
        self.found = True
        config = {**operation.get_config(), **self._changes}
        return type(operation).from_config(config)

    def run(self, model):
        clone = self._clone(model)
        for layer, copy in self._copies.values():
            if layer is not self._head and not is_plain_graph_model(layer):
                copy_variables(layer, copy)
        return clone


def num_outputs(model):
    """Number of classes of a classifier."""
    return int(keras.tree.flatten(model.outputs)[0].shape[-1])
