"""The operations of a Functional or Sequential model as one flat list."""

import dataclasses

import keras
from keras import tree


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor between two operations.

    Attributes:
        shape: with `None` for the batch axis.
        producer: the `Site` that makes it, or `None` for a model input.
        name: a readable name.
    """

    shape: tuple
    producer: "Site | None"
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """One call of one operation.

    Attributes:
        operation: the layer (or other Keras operation).
        path: names of the nested models and of the operation, with `/`.
        inputs: the `Value`s it reads, in order.
        outputs: the `Value`s it makes.
    """

    operation: object
    path: str
    inputs: list
    outputs: list


class Graph:
    """Sites in topological order; nested models are opened.

    Attributes:
        sites: list of `Site`.
        inputs: list of `Value`.
        outputs: list of `Value`.
    """

    def __init__(self, model):
        self.sites = []
        self.inputs = [
            Value(tuple(t.shape), None, t.name)
            for t in tree.flatten(model.inputs)
        ]
        self.outputs = self._run(model, self.inputs, prefix="")
        self._consumers = {}
        for site in self.sites:
            for value in site.inputs:
                self._consumers.setdefault(value, []).append(site)

    def consumers(self, value):
        """The sites that read a value."""
        return self._consumers.get(value, [])

    def is_output(self, value):
        return value in self.outputs

    def sites_of(self, operation):
        """Every call of an operation."""
        return [site for site in self.sites if site.operation is operation]

    def _run(self, model, inputs, prefix):
        model = functional(model)
        values = {
            id(tensor): value
            for tensor, value in zip(tree.flatten(model.inputs), inputs)
        }
        for node in _sorted_nodes(model):
            operation = node.operation
            path = f"{prefix}{operation.name}"
            site_inputs = [values[id(t)] for t in node.input_tensors]
            if is_graph_model(operation):
                made = self._run(operation, site_inputs, f"{path}/")
            else:
                site = Site(operation, path, site_inputs, [])
                site.outputs.extend(
                    Value(tuple(t.shape), site, path)
                    for t in node.output_tensors
                )
                self.sites.append(site)
                made = site.outputs
            values.update(
                (id(t), value) for t, value in zip(node.output_tensors, made)
            )
        return [values[id(t)] for t in tree.flatten(model.outputs)]


def is_graph_model(operation):
    """Whether an operation is a model made of a graph of operations."""
    return isinstance(operation, keras.Sequential) or (
        isinstance(operation, keras.Model) and hasattr(operation, "operations")
    )


def functional(model):
    """The Functional model that a Sequential builds inside itself."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model


def _sorted_nodes(model):
    """The model's own nodes, producers first (not those of other graphs)."""
    inputs = {id(t) for t in tree.flatten(model.inputs)}
    order, seen = [], set()
    stack = [(t, False) for t in reversed(tree.flatten(model.outputs))]
    while stack:
        tensor, done = stack.pop()
        if id(tensor) in inputs:
            continue
        operation, node_index, _ = tensor._keras_history
        node = operation._inbound_nodes[node_index]
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(node.input_tensors))
    return order
