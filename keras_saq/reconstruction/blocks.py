"""The blocks of a network: the parts between which one tensor is handed on.

A cut is possible where one tensor is all that the rest of the network reads:
in front of and behind a residual block or an attention block, and never inside
of one. Blocks are found from the graph; layers that one kernel computes
(convolution, batch norm, ReLU) stay together.
"""

import dataclasses

import keras
from keras import tree

from keras_saq.models.copy import nodes_in_order
from keras_saq.models.graph import functional
from keras_saq.models.graph import is_graph_model


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A part of the quantized model and the same part in float.

    Attributes:
        name: of its last layer.
        model: the quantized part, a Keras model that shares its layers.
        float_model: the float part.
    """

    name: str
    model: object
    float_model: object


def find_blocks(q, model, cuts=None):
    """The blocks of a quantized model, first to last.

    Args:
        q: the quantized model.
        model: the float model that it was made from.
        cuts: names of the layers that blocks end with; `None` finds them.

    Returns:
        List of `Block`. A model that is no graph of layers is one block.

    Raises:
        ValueError: if there is no cut behind a layer of `cuts`.

    Example:

    >>> import keras, keras_saq
    >>> from keras_saq.reconstruction.blocks import find_blocks
    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.Dense(4, activation="relu", name="first")(inputs)
    >>> y = keras.layers.Dense(4, activation="relu", name="second")(x)
    >>> x = keras.layers.Add(name="sum")([x, keras.layers.Dense(4)(y)])
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="last")(x))
    >>> q = keras_saq.quantize_model(model)
    >>> [block.name for block in find_blocks(q, model)]
    ['first', 'sum', 'last']
    """
    if not (is_graph_model(q) and is_graph_model(model)):
        return [Block(q.name, q, model)]
    graphs = functional(q), functional(model)
    floats = _tensors_by_name(graphs[1])
    possible = _possible_cuts(graphs[0])
    possible = [(name, t) for name, t in possible if name in floats]
    if cuts is not None:
        known = [name for name, _ in possible]
        wrong = [name for name in cuts if name not in known]
        if wrong:
            raise ValueError(
                f"The model cannot be cut behind {wrong}: more than one tensor "
                f"is handed on there. `blocks` can be any of {known}."
            )
        possible = [(name, t) for name, t in possible if name in cuts]
    ends = [(name, tensor, floats[name]) for name, tensor in possible]
    # With the structure that the model returns.
    last = graphs[0].operations[-1].name
    ends.append((last, graphs[0].outputs, graphs[1].outputs))
    found = []
    starts = graphs[0].inputs, graphs[1].inputs
    for name, *tensors in ends:
        parts = [
            keras.Model(_one(start), _one(end))
            for start, end in zip(starts, tensors)
        ]
        found.append(Block(name, *parts))
        starts = tensors
    return found


def _one(tensors):
    tensors = tree.flatten(tensors)
    return tensors[0] if len(tensors) == 1 else tensors


def _tensors_by_name(graph):
    """What each operation that is called once makes, if it is one tensor."""
    calls = {}
    for node in nodes_in_order(graph):
        calls.setdefault(node.operation.name, []).append(node)
    return {
        name: nodes[0].output_tensors[0]
        for name, nodes in calls.items()
        if len(nodes) == 1 and len(nodes[0].output_tensors) == 1
    }


def _possible_cuts(graph):
    """`(name, tensor)` of the places where blocks can end, in order."""
    nodes = nodes_in_order(graph)
    readers = {}
    for node in nodes:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    outputs = {id(t) for t in graph.outputs}
    single = _tensors_by_name(graph)
    live = {id(t) for t in graph.inputs}
    left = {key: len(value) for key, value in readers.items()}
    found, weighted, seen = [], False, set()
    for node in nodes:
        for tensor in node.input_tensors:
            left[id(tensor)] -= 1
            if not left[id(tensor)] and id(tensor) not in outputs:
                live.discard(id(tensor))
        live |= {id(t) for t in node.output_tensors}
        weighted |= _has_weights(node.operation) and id(node) not in seen
        name = node.operation.name
        tensor = single.get(name)
        if tensor is None or live != {id(tensor)} or not weighted:
            continue
        next_nodes = readers.get(id(tensor), [])
        # What a kernel computes along with what is before it stays with it.
        if len(next_nodes) > 1 or any(
            _has_weights(n.operation) for n in next_nodes
        ):
            found.append((name, tensor))
            weighted = False
    return found


def _has_weights(operation):
    return bool(getattr(operation, "weight_names", None)) or any(
        getattr(part, "weight_names", None)
        for part in getattr(operation, "_flatten_layers", list)()
    )
