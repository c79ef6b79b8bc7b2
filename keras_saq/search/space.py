"""The search space: which decisions there are, and which bits each may take.

A decision is a *group*: the weights of a layer, or the tensor that layers
read. Layers that read one tensor of one quantizer are one group, as they are
in the quantized model; so are calls of a shared layer, and what `ties` ties.
"""

import dataclasses
import re

from keras_saq.layers.roles import family
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.models.bits import next_to_inputs
from keras_saq.models.bits import next_to_outputs
from keras_saq.models.plan import Plan
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.policy.patterns import full_match
from keras_saq.search.candidates import Candidates
from keras_saq.search.candidates import as_candidates
from keras_saq.search.cost import macs_of
from keras_saq.search.reads import added_together
from keras_saq.search.reads import fixed_input
from keras_saq.search.reads import read_quantizer
from keras_saq.search.reads import weighted_layers
from keras_saq.search.ties import Ties

TARGETS = ("litert", "paper")
REST = Rule(weight_bits=8, activation_bits=8)
# The kernel limits of a target.
_INT8_ONLY = ("depthwise",)


@dataclasses.dataclass(frozen=True)
class Group:
    """One decision.

    Attributes:
        kind: `"weights"` or `"activations"`.
        bits: candidates, ascending; one where there is nothing to decide.
        paths: paths of the layers whose weights, or inputs, they are.
    """

    kind: str
    bits: tuple
    paths: tuple

    @property
    def name(self):
        """A readable name, unique in a search space."""
        what = "weights" if self.kind == "weights" else "input"
        return f"{self.paths[0]} {what}"


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSite:
    """One call of a layer with weights.

    Attributes:
        path: path of the layer.
        site: the `Site` of the graph, or `None` where the graph has none.
        layer: the layer.
        macs: multiplications of one inference.
        weights: index of the group of its weights, or `None`.
        weight_bits: their bits where there is no group.
        inputs: index of the group of the tensor it reads, or `None`.
        input_bits: its bits where there is no group.
    """

    path: str
    site: object
    layer: object
    macs: int
    weights: int | None
    weight_bits: int | None
    inputs: int | None
    input_bits: int | None


class SearchSpace:
    """The decisions that a search makes about a model.

    Args:
        model: a built float model.
        candidates: see `keras_saq.search.candidates.as_candidates`.
        target: `"litert"`: integer files, where depthwise convolutions have
            8 bits; `"paper"`: only inputs of layers with weights are
            quantized, and every layer may have any bits.
        ties: what has to have the same bits: regular expressions, each for
            the paths of some layers, and `"residual"` for layers whose
            outputs are added.
        first_last_bits: see `QuantizePolicy`; `None`: they are searched.
        kernel_limits: whether the limits of the target's kernels hold.

    Attributes:
        groups: list of `Group`.
        sites: list of `SearchSite`.
        plan: the `Plan` in which every group has its fewest bits.

    Example:

    >>> import keras
    >>> from keras_saq.search import SearchSpace
    >>> model = keras.Sequential(
    ...     [keras.Input((4,))] + [keras.layers.Dense(4, name=n) for n in "abc"]
    ... )
    >>> space = SearchSpace(model, (2, 4), target="paper")
    >>> [(group.name, group.bits) for group in space.groups]
    [('b weights', (2, 4)), ('b input', (2, 4))]
    >>> space.policy([0, 1]).rule_for("b", "Dense")
    Rule(weight_bits=2, activation_bits=4, path='b')
    """

    def __init__(
        self,
        model,
        candidates=(2, 3, 4, 5, 6),
        target="paper",
        ties=(),
        first_last_bits=8,
        kernel_limits=True,
    ):
        if target not in TARGETS:
            raise ValueError(
                f"`target` must be one of {list(TARGETS)}. "
                f"Received: target={target!r}"
            )
        self.settings = {
            "candidates": as_candidates(candidates),
            "target": target,
            "ties": (ties,) if isinstance(ties, str) else tuple(ties),
            "first_last_bits": first_last_bits,
            "kernel_limits": kernel_limits,
        }
        self.model = model
        self.target = target
        high = Plan(model, self._policy({}))
        self._outer = set()
        if first_last_bits is not None:
            self._outer = next_to_inputs(high.graph) | next_to_outputs(
                high.graph
            )
        self._paths, self._searched = {}, {}
        for path, layer in weighted_layers(model, high.graph):
            self._paths.setdefault(id(layer), path)
            found = self._candidates_of(path, layer)
            if found is not None and id(layer) not in self._searched:
                self._searched[id(layer)] = found
        lowest = {
            self._paths[key]: (min(c.weight_bits), min(c.activation_bits))
            for key, c in self._searched.items()
        }
        self.plan = Plan(model, self._policy(lowest))
        self._high = high
        self._make_groups()

    def on(self, model):
        """The same space on another model of the same layers."""
        return SearchSpace(model, **self.settings)

    @property
    def searched_paths(self):
        """Paths of the layers with a decision, in order."""
        return [self._paths[key] for key in self._searched]

    def bits(self, assignment):
        """Bits of each group, for the indices of their candidates."""
        return [g.bits[i] for g, i in zip(self.groups, assignment, strict=True)]

    def policy(self, assignment, provenance=None):
        """The `QuantizePolicy` of a decision.

        Args:
            assignment: index of a candidate for each group.
            provenance: see `QuantizePolicy`.
        """
        bits = self.bits(assignment)
        chosen = {}
        for site in self.sites:
            if id(site.layer) in self._searched:
                chosen[self._paths[id(site.layer)]] = (
                    bits[site.weights],
                    REST.activation_bits
                    if site.inputs is None
                    else bits[site.inputs],
                )
        return self._policy(chosen, provenance)

    def _policy(self, chosen, provenance=None):
        rules = [c for c in self.settings["candidates"] if isinstance(c, Rule)]
        rules += [
            Rule(
                weight_bits=weights,
                activation_bits=activations,
                path=re.escape(path),
            )
            for path, (weights, activations) in chosen.items()
        ]
        policy = QuantizePolicy(
            rules=(*rules, REST),
            first_last_bits=self.settings["first_last_bits"],
            scheme=self.target,
            provenance=provenance,
        )
        if not chosen or REST not in policy.unused_rules(self.model):
            return policy
        return dataclasses.replace(policy, rules=tuple(rules))

    # --- Groups

    def _candidates_of(self, path, layer):
        """The `Candidates` of a layer; `None` where its bits are fixed."""
        if id(layer) in self._outer:
            return None
        for entry in self.settings["candidates"]:
            if entry.matches(path, layer):
                if isinstance(entry, Rule):
                    return None
                if self.settings["kernel_limits"] and self._is_limited(layer):
                    return Candidates(weight_bits=8)
                return entry
        return None

    def _is_limited(self, layer):
        return self.target == "litert" and family(layer) in _INT8_ONLY

    def _make_groups(self):
        ties = Ties()
        found = []
        for site in self.plan.graph.sites:
            if is_weighted(site.operation):
                reads = read_quantizer(self.plan, site)
                free = self._is_free(site, reads)
                found.append((site.operation, site, reads, free))
                if free:
                    chosen = self._searched[id(site.operation)]
                    ties.add(id(reads), chosen.activation_bits)
        seen = {id(layer) for layer, *_ in found}
        for _, layer in weighted_layers(self.model, self.plan.graph):
            if id(layer) not in seen:
                seen.add(id(layer))
                found.append((layer, None, None, False))
        for layer, *_ in found:
            if id(layer) in self._searched:
                ties.add(id(layer), self._searched[id(layer)].weight_bits)
        self._tie(ties, found)
        self.groups, self.sites, index = [], [], {}
        members = {}
        for layer, _, reads, free in found:
            path = self._paths[id(layer)]
            if id(layer) in self._searched:
                key = ("weights", ties.root(id(layer)))
                members.setdefault(key, []).append(path)
            if free:
                key = ("activations", ties.root(id(reads)))
                members.setdefault(key, []).append(path)
        for (kind, root), paths in members.items():
            index[root] = len(self.groups)
            paths = tuple(dict.fromkeys(paths))
            bits = ties.bits(root)
            if not bits:
                raise ValueError(
                    f"The {kind} of the layers {list(paths)} must have the "
                    "same number of bits, and their candidates have none in "
                    "common. Give them a common candidate."
                )
            self.groups.append(Group(kind, bits, paths))
        self.quantizers = {}
        for layer, site, reads, free in found:
            weights = inputs = None
            if id(layer) in self._searched:
                weights = index[ties.root(id(layer))]
            if free:
                inputs = index[ties.root(id(reads))]
                self.quantizers[id(reads)] = inputs
            weight_bits = None if weights is not None else self._fixed(layer)
            self.sites.append(
                SearchSite(
                    path=self._paths[id(layer)] if site is None else site.path,
                    site=site,
                    layer=layer,
                    macs=0 if site is None else macs_of(site),
                    weights=weights,
                    weight_bits=weight_bits,
                    inputs=inputs,
                    input_bits=None
                    if free
                    else fixed_input(reads, weight_bits),
                )
            )

    def _is_free(self, site, low):
        """Whether the bits of what a site reads are its layer's decision."""
        chosen = self._searched.get(id(site.operation))
        return (
            chosen is not None
            and hasattr(low, "num_bits")
            and low.num_bits == min(chosen.activation_bits)
        )

    def _tie(self, ties, found):
        """Ties what `ties` says, weights and inputs alike."""
        for expression in self.settings["ties"]:
            if expression == "residual":
                sets = added_together(self.plan.graph)
            else:
                sets = [
                    {
                        key
                        for key, path in self._paths.items()
                        if full_match(expression, path)
                    }
                ]
            for layer_ids in sets:
                chosen = [
                    (layer, reads, free)
                    for layer, _, reads, free in found
                    if id(layer) in layer_ids and id(layer) in self._searched
                ]
                ties.join([id(layer) for layer, *_ in chosen])
                ties.join([id(reads) for _, reads, free in chosen if free])

    def _fixed(self, layer):
        """Bits of weights that are nobody's decision."""
        config = self.plan.config_of(layer)
        if config is None or not config.weights:
            return FLOAT_BITS
        return max(q.num_bits for q in config.weights.values())

    def already_quantized(self, site):
        """The quantizer behind the one at a layer's input, or `None`.

        `None` also where the layer needs that quantizer at any bits.
        """
        high = self._high.config_of(site.operation)
        if high is not None and high.inputs is not None:
            return None
        found = read_quantizer(self.plan, site, own=False)
        return found if hasattr(found, "num_bits") else None
