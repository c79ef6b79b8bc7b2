"""The operations of a model, at any depth, as one flat list.

Functional and Sequential models say what they consist of. Everything else
(subclassed models, composite layers, attention) is found by symbolic descent:
its `call` is given symbolic tensors, and each layer and operation that it
calls is recorded. Where a `call` cannot be followed, because it computes with
a backend's own functions, the composite stays one closed site.
"""

import dataclasses

import keras
from keras import tree
from keras.src.models.functional import functional_like_constructor

from keras_saq.layers import roles
from keras_saq.models import masks as masking
from keras_saq.models.descent import Call
from keras_saq.models.descent import descend
from keras_saq.models.descent import input_structure
from keras_saq.models.descent import is_composite
from keras_saq.models.descent import sorted_nodes
from keras_saq.models.names import names_of


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor between two operations.

    Attributes:
        shape: with `None` for the batch axis.
        producer: the `Site` that makes it, or `None` for a model input.
        name: a readable name.
        dtype: name of its dtype.
    """

    shape: tuple
    producer: "Site | None"
    name: str
    dtype: str = "float32"

    @property
    def is_real(self):
        """Whether it holds real numbers, and no indices or a mask."""
        return "float" in self.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One call of one operation.

    Attributes:
        operation: the layer (or other Keras operation).
        path: names of the models and layers it is in, and its own, with `/`.
        inputs: the `Value`s it reads, in order.
        outputs: the `Value`s it makes.
        owner: the outermost composite that the operation is in, or `None`.
        closed: why a composite could not be followed; `None` otherwise.
        call: the `Call` with all of its arguments.
        node: the Keras node of a plain Functional model that is this call, at
            which a copy can have more layers; `None` elsewhere.
    """

    operation: object
    path: str
    inputs: list
    outputs: list
    owner: object = None
    closed: str | None = None
    call: Call | None = None
    node: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Opening:
    """One call of a composite that was followed: what went in and out."""

    composite: object
    path: str
    inputs: list
    outputs: list


class Graph:
    """Sites in topological order; models and composite layers are opened.

    Args:
        model: a built Keras model.
        is_leaf: function of a layer and its path that says whether a
            composite is not to be opened.
        input_shapes: list of shapes without the batch axis, for models whose
            inputs have open sizes; `None` leaves them open.

    Attributes:
        sites: list of `Site`.
        openings: list of `Opening`, of composites that no other is around.
        inputs: list of `Value`.
        outputs: list of `Value`.
        input_names: what the model calls its inputs, each different.
        output_names: the same for the outputs.
    """

    def __init__(self, model, is_leaf=None, input_shapes=None):
        self.sites = []
        self.openings = []
        self.model = model
        self._is_leaf = is_leaf or (lambda layer, path: False)
        if is_graph_model(model):
            self.inputs = [
                Value(tuple(t.shape), None, t.name, t.dtype)
                for t in tree.flatten(model.inputs)
            ]
            if input_shapes is not None:
                self.inputs = _sized(self.inputs, input_shapes)
            owner = None if is_plain_graph_model(model) else model
            self.outputs = self._run(model, self.inputs, "", owner)
            made = functional(model)
            takes, gives = made.input, made.output
            names = made.output_names
        else:
            arguments = input_structure(model)
            self.inputs = [
                Value(tuple(t.shape), None, f"input_{i}", t.dtype)
                for i, t in enumerate(arguments.tensors)
            ]
            self._returned = None
            self.outputs = self._open(
                model, arguments, self.inputs, "", "", model
            )
            takes, gives = (arguments.args, arguments.kwargs), self._returned
            names = [value.name for value in self.outputs]
        self.input_names = names_of(takes, [v.name for v in self.inputs])
        self.output_names = names_of(gives, names)
        self._consumers = {}
        for site in self.sites:
            for value in site.inputs:
                self._consumers.setdefault(value, []).append(site)
        self._sites_of = {}
        for site in self.sites:
            self._sites_of.setdefault(id(site.operation), []).append(site)

    def consumers(self, value):
        """The sites that read a value."""
        return self._consumers.get(value, [])

    def is_output(self, value):
        return value in self.outputs

    def sites_of(self, operation):
        """Every call of an operation."""
        return self._sites_of.get(id(operation), [])

    def _run(self, model, inputs, prefix, owner, call=None):
        """The sites of a Functional or Sequential model."""
        is_sequential = isinstance(model, keras.Sequential)
        model = functional(model)
        if call is None:
            call = Call(tuple(tree.flatten(model.inputs)), {})
        if call.masks or masking.makes_masks(model):
            # Its own nodes do not say who reads a mask.
            with descend(model, call) as trace:
                if trace.failure is None:
                    values = {
                        id(t): value for t, value in zip(trace.inputs, inputs)
                    }
                    return self._walk(
                        trace.nodes, values, trace.outputs, prefix, owner
                    )
        values = {
            id(tensor): value
            for tensor, value in zip(tree.flatten(model.inputs), inputs)
        }
        nodes = sorted_nodes(model.inputs, model.outputs)
        is_plain = not is_sequential and owner is None
        return self._walk(nodes, values, model.outputs, prefix, owner, is_plain)

    def _walk(self, nodes, values, outputs, prefix, owner, is_plain=False):
        for node in nodes:
            operation = node.operation
            path = f"{prefix}{operation.name}"
            inputs = [values[id(t)] for t in node.input_tensors]
            call = _call_at(node, inputs)
            made = self._visit(
                operation, call, inputs, path, owner, node if is_plain else None
            )
            values.update(
                (id(t), value) for t, value in zip(node.output_tensors, made)
            )
        return [values[id(t)] for t in tree.flatten(outputs)]

    def _visit(self, operation, call, inputs, path, owner, node=None):
        opened = not self._is_leaf(operation, path)
        if opened and is_graph_model(operation):
            inside = owner
            if owner is None and not is_plain_graph_model(operation):
                inside = operation
            made = self._run(operation, inputs, f"{path}/", inside, call)
            if owner is None and inside is not None:
                self.openings.append(Opening(operation, path, inputs, made))
            return made
        if opened and is_composite(operation):
            return self._open(
                operation, call, inputs, path, f"{path}/", owner or operation
            )
        return self._close(operation, call, inputs, path, owner, node=node)

    def _close(
        self, operation, call, inputs, path, owner, closed=None, node=None
    ):
        if closed is None:
            # What a single layer reads of a mask is an argument of it.
            inputs = inputs[: len(call.arguments)]
            call = call.without_masks()
        site = Site(operation, path, inputs, [], owner, closed, call, node)
        site.outputs.extend(
            Value(tuple(t.shape), site, path, t.dtype) for t in call.outputs
        )
        self.sites.append(site)
        return site.outputs

    def _open(self, composite, call, inputs, path, prefix, owner):
        """The sites of a composite, by symbolic descent."""
        count = len(self.sites)
        if roles.family(composite) == "time_distributed":
            made = self._open_time_distributed(
                composite, call, inputs, prefix, owner
            )
        else:
            with descend(composite, call) as trace:
                if trace.failure is not None:
                    return self._close(
                        composite,
                        call,
                        inputs,
                        path,
                        owner,
                        trace.failure,
                    )
                values = {
                    id(t): value for t, value in zip(trace.inputs, inputs)
                }
                if composite is self.model:
                    self._returned = trace.returned
                made = self._walk(
                    trace.nodes, values, trace.outputs, prefix, owner
                )
        if owner is composite:
            self.openings.append(Opening(composite, path, inputs, made))
        if len(self.sites) == count:
            # Nothing in it is worth a site; it is one itself.
            return self._close(composite, call, inputs, path, owner)
        return made

    def _open_time_distributed(self, wrapper, call, inputs, prefix, owner):
        """The layer inside, which is run on each step of a sequence."""
        layer = wrapper.layer
        path = f"{prefix}{layer.name}"
        if is_graph_model(layer):
            return self._run(layer, inputs[:1], f"{path}/", owner)
        step = Call((_one_step(call.tensors[0]),), {}, call.outputs)
        if is_composite(layer):
            return self._open(layer, step, inputs[:1], path, f"{path}/", owner)
        return self._close(layer, step, inputs[:1], path, owner)


def _sized(inputs, shapes):
    """The model's inputs with sizes where they are open."""
    fits = len(shapes) == len(inputs) and all(
        len(shape) + 1 == len(value.shape)
        and all(a in (None, b) for a, b in zip(value.shape[1:], shape))
        for value, shape in zip(inputs, shapes)
    )
    if not fits:
        raise ValueError(
            "The shapes of the inputs do not fit the model. Expected, without "
            f"the batch axis: {[value.shape[1:] for value in inputs]}, where "
            f"`None` can be any size. Received: {list(map(tuple, shapes))}"
        )
    return [
        dataclasses.replace(value, shape=(value.shape[0], *shape))
        for value, shape in zip(inputs, shapes)
    ]


def _one_step(tensor):
    batch, _, *rest = tensor.shape
    return keras.KerasTensor((batch, *rest), tensor.dtype)


def _call_at(node, inputs):
    """The call of a node, on tensors of the sizes that are known.

    A model made for images or texts of any size can be a layer of one that
    is made for a fixed size.
    """
    call = Call.of_node(node)
    sizes = {
        id(tensor): value.shape
        for tensor, value in zip(node.input_tensors, inputs)
        if None in tensor.shape[1:] and None not in value.shape[1:]
    }
    if not sizes:
        return call

    def resize(value):
        if id(value) not in sizes:
            return value
        return keras.KerasTensor(sizes[id(value)], value.dtype)

    args, kwargs = tree.map_structure(resize, (call.args, call.kwargs))
    try:
        outputs = node.operation.compute_output_spec(*args, **kwargs)
    except Exception:  # whatever somebody's `call` may raise
        return call
    outputs = [
        t for t in tree.flatten(outputs) if isinstance(t, keras.KerasTensor)
    ]
    return Call(args, kwargs, outputs, call.masks)


def is_graph_model(operation):
    """Whether an operation is a model made of a graph of operations."""
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model) and hasattr(operation, "operations")
    )


def is_plain_graph_model(model):
    """Whether `clone_model` makes a model of the same class.

    A class of its own, such as a backbone of KerasHub, is made by its own
    constructor, with all that is inside.
    """
    if isinstance(model, keras.Sequential):
        return type(model).__init__ is keras.Sequential.__init__
    return is_graph_model(model) and functional_like_constructor(type(model))


def functional(model):
    """The Functional model that a Sequential builds inside itself."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model
