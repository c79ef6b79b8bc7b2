"""What the rules of a policy say about each layer of a graph."""

import dataclasses

import keras

from keras_saq.layers.roles import is_weighted


@dataclasses.dataclass(frozen=True)
class Bits:
    """What one layer with weights, or one product, is given.

    Attributes:
        rule: the `Rule` that matched.
        weights: bits of its weights.
        activations: bits of the tensors it reads; `None` for float.
    """

    rule: object
    weights: int
    activations: int | None


class BitsTable:
    """Bits by layer.

    Attributes:
        unmatched: paths, with the layer, of weighted layers without bits.
    """

    def __init__(self, policy, model):
        self._policy = policy
        self._bits = {}
        self._outer = set()
        self.unmatched = []
        # Whether any tensor between layers is quantized at all.
        self.has_activations = not policy.weight_only

    def is_leaf(self, layer, path):
        """Whether a rule's own configuration names the weights of a layer."""
        if not isinstance(layer, keras.layers.Layer):
            return False
        rule = self._policy.rule_for(path, layer)
        return rule is not None and rule.config is not None

    def resolve(self, graph):
        """Finds the bits of every layer in a graph."""
        if self._policy.first_last_bits is not None:
            self._outer = next_to_inputs(graph) | next_to_outputs(graph)
        for site in graph.sites:
            self.add(site.operation, site.path)

    def add(self, layer, path):
        """Finds the bits of one layer; the first path of a layer counts."""
        if id(layer) in self._bits or not isinstance(layer, keras.layers.Layer):
            return
        rule = self._policy.rule_for(path, layer)
        if rule is not None and rule.config is not None:
            self._bits[id(layer)] = Bits(rule, None, rule.activation_bits)
        elif is_weighted(layer):
            if rule is None or rule.keep_float:
                self.unmatched.append((layer, path))
                return
            weights, activations = rule.weight_bits, rule.activation_bits
            if id(layer) in self._outer:
                weights = self._policy.first_last_bits
                if activations is not None:
                    activations = weights
            self._bits[id(layer)] = Bits(rule, weights, activations)

    def of(self, layer):
        """The `Bits` of a layer, or `None` where it stays in float."""
        return self._bits.get(id(layer))

    def is_float(self, site):
        """Whether the policy says that a layer or operation stays in float."""
        if is_weighted(site.operation):
            return self.of(site.operation) is None
        rule = self._policy.rule_for(site.path, site.operation)
        return rule is not None and rule.keep_float

    def of_product(self, site):
        """Bits of what a product such as attention's reads, or `None`."""
        rule = self._policy.rule_for(site.path, site.operation)
        if rule is None or rule.keep_float:
            return None
        return rule.activation_bits

    def num_weighted(self):
        return len(self._bits)


def next_to_inputs(graph):
    """Ids of weighted layers that no weighted layer comes before."""
    return _first_weighted(
        (site.operation, site.inputs, site.outputs) for site in graph.sites
    )


def next_to_outputs(graph):
    """Ids of weighted layers that no weighted layer comes after."""
    return _first_weighted(
        (site.operation, site.outputs, site.inputs)
        for site in reversed(graph.sites)
    )


def _first_weighted(steps):
    """Walks `(layer, values from, values to)`; the first weighted per path."""
    behind, found = set(), set()
    for layer, before, after in steps:
        reached = any(value in behind for value in before)
        if is_weighted(layer):
            if not reached:
                found.add(id(layer))
            reached = True
        if reached:
            behind.update(after)
    return found
