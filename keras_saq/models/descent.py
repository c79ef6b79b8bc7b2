"""Symbolic descent: what a layer's `call` does, found by following it.

The `call` of a composite is given symbolic tensors (`keras.KerasTensor`).
Each layer and `keras.ops` function that it calls with them leaves a node, as
it does when a Functional model is made. Afterwards the nodes are taken away
again: the layers are the user's.
"""

import contextlib
import dataclasses
import functools
import warnings

import keras
from keras import tree

from keras_saq.layers.attention import unfused
from keras_saq.layers.hidden import float_class
from keras_saq.layers.hidden import parts
from keras_saq.layers.roles import family
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight_axes
from keras_saq.models import masks as masking
from keras_saq.models import randomness


@dataclasses.dataclass
class Call:
    """The arguments of a call, with symbolic tensors in them.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        outputs: flat list of the tensors that the call made, where known.
        masks: list of `(tensor, mask)` for those of the tensors that have one
            attached (see `keras_saq.models.masks`).
    """

    args: tuple
    kwargs: dict
    outputs: list = dataclasses.field(default_factory=list)
    masks: list = dataclasses.field(default_factory=list)

    @classmethod
    def of_node(cls, node):
        args, kwargs, masks = masking.arguments_of(node)
        return cls(args, kwargs, node.output_tensors, masks)

    @property
    def arguments(self):
        """The symbolic tensors among the arguments, in order."""
        return [
            a
            for a in tree.flatten((self.args, self.kwargs))
            if isinstance(a, keras.KerasTensor)
        ]

    @property
    def tensors(self):
        """The symbolic tensors, in order; masks that are no argument last."""
        tensors = self.arguments
        read = {id(t) for t in tensors}
        return tensors + [m for _, m in self.masks if id(m) not in read]

    def without_masks(self):
        return dataclasses.replace(self, masks=[])

    def fresh(self, batch):
        """The same arguments with new tensors, which have no history."""
        made = {}

        def copy(value):
            if not isinstance(value, keras.KerasTensor):
                return value
            shape = value.shape
            if batch is not None and shape and shape[0] is None:
                shape = (batch, *shape[1:])
            if id(value) not in made:
                made[id(value)] = keras.KerasTensor(shape, value.dtype)
            return made[id(value)]

        args, kwargs = tree.map_structure(copy, (self.args, self.kwargs))
        masks = [(copy(tensor), copy(mask)) for tensor, mask in self.masks]
        masking.attach(masks)
        return Call(args, kwargs, masks=masks)


@dataclasses.dataclass
class Trace:
    """What a descent found.

    Attributes:
        inputs: the symbolic tensors that went in, in order.
        outputs: the symbolic tensors that came out, in order.
        returned: what came out, in its own structure.
        nodes: producers before consumers.
        failure: why the call could not be followed, or `None`.
    """

    inputs: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)
    returned: object = None
    nodes: list = dataclasses.field(default_factory=list)
    failure: str | None = None


def is_composite(operation):
    """Whether a layer consists of layers that are worth a look."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    if is_weighted(operation):
        return False
    if isinstance(operation, keras.layers.RNN):
        return False  # a loop over a cell, which no descent can follow
    return any(_has_state(part) for part in parts(operation))


def _has_state(layer):
    return bool(
        weight_axes(layer)
        or layer.weights
        or any(map(_has_state, parts(layer)))
    )


@contextlib.contextmanager
def descend(composite, call):
    """Follows a call; the nodes exist inside of the context only.

    Args:
        composite: a layer or model.
        call: the `Call`.

    Yields:
        A `Trace`.
    """
    # A batch of one first: code that computes with shapes needs a number.
    trace = None
    with _clean_nodes(composite):
        for batch in (1, None):
            trace = _follow(composite, call.fresh(batch))
            if trace.failure is None:
                break
        yield trace


def _follow(composite, call):
    trace = Trace(inputs=call.tensors)
    float_call = float_class(type(composite)).call
    graph = getattr(composite, "_functional", composite)
    if not hasattr(graph, "_run_through_graph"):
        graph = None
    try:
        with (
            warnings.catch_warnings(),
            unfused(composite),
            masking.noted(),
            _known_lengths(composite),
            randomness.noticed() as drawn,
        ):
            warnings.simplefilter("ignore")
            if graph is not None:
                outputs = graph._run_through_graph(
                    tree.flatten((call.args, call.kwargs)), lambda op: op
                )
            else:
                outputs = float_call(composite, *call.args, **call.kwargs)
    except Exception as error:  # whatever somebody's `call` may raise
        trace.failure = randomness.RANDOM if drawn else _first_line(error)
        return trace
    if drawn:
        trace.failure = randomness.RANDOM
        return trace
    trace.returned = outputs
    trace.outputs = [
        t for t in tree.flatten(outputs) if isinstance(t, keras.KerasTensor)
    ]
    try:
        trace.nodes = sorted_nodes(trace.inputs, trace.outputs)
    except LookupError as error:
        trace.failure = _first_line(error)
    return trace


@contextlib.contextmanager
def _known_lengths(composite):
    """Lets EinsumDense layers say how long their output sequences are.

    Attention gives theirs an output shape with `None` for the length, and
    Keras believes it.
    """
    inside = [
        layer
        for layer in composite._flatten_layers()
        if family(layer) == "einsum_dense"
    ]
    for layer in inside:
        layer.__dict__["compute_output_spec"] = functools.partial(
            _einsum_spec, layer
        )
    try:
        yield
    finally:
        for layer in inside:
            del layer.__dict__["compute_output_spec"]


def _einsum_spec(layer, inputs, training=None):
    operands, output = layer.equation.split("->")
    source, kernel = operands.split(",")
    if "..." in source:
        return keras.KerasTensor(
            layer.compute_output_shape(inputs.shape), layer.compute_dtype
        )
    sizes = dict(zip(kernel, layer.kernel.shape))
    sizes |= dict(zip(source, inputs.shape))
    shape = tuple(sizes[letter] for letter in output)
    return keras.KerasTensor(shape, layer.compute_dtype)


def _first_line(error):
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


@contextlib.contextmanager
def _clean_nodes(composite):
    """Takes the nodes away that were added to layers inside."""
    layers = list(composite._flatten_layers())
    counts = [
        (layer, len(layer._inbound_nodes), len(layer._outbound_nodes))
        for layer in layers
    ]
    try:
        yield
    finally:
        for layer, inbound, outbound in counts:
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]


def sorted_nodes(inputs, outputs):
    """The nodes between tensors, producers first."""
    inputs = {id(t) for t in tree.flatten(inputs)}
    order, seen = [], set()
    stack = [(t, False) for t in reversed(tree.flatten(outputs))]
    while stack:
        tensor, done = stack.pop()
        if id(tensor) in inputs:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise LookupError("a tensor in it comes from no known operation")
        node = history.operation._inbound_nodes[history.node_index]
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(node.input_tensors))
    return order


def input_structure(model):
    """The call of a subclassed model with the shapes it was built with."""
    shapes = model._build_shapes_dict or {}

    def tensor(shape):
        return keras.KerasTensor((None, *shape[1:]), "float32")

    made = {
        name: tree.map_shape_structure(tensor, shape)
        for name, shape in shapes.items()
    }
    if len(made) == 1:
        return Call(tuple(made.values()), {})
    return Call(
        (), {name.removesuffix("_shape"): t for name, t in made.items()}
    )
