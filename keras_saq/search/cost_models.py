"""What bits cost, as tables that an integer program and a gradient can read.

A cost is the largest of some rows, each

    constant + sum_g linear_g[i_g] + sum_(g, h) pairs_gh[i_g, i_h]

where i_g is the candidate of group g. Bit operations, which are products of
the bits of weights and inputs, are one row of pairs. The peak of activation
memory has a row for each moment of the inference.
"""

import dataclasses
import math

import numpy as np
from keras import ops

from keras_saq.layers import roles
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.layers.storage import stored_bytes
from keras_saq.search.file_size import file_overhead
from keras_saq.search.reads import read_quantizer


@dataclasses.dataclass
class Row:
    """One row of a cost, see the module.

    Attributes:
        constant: a number.
        linear: dict from a group's index to an array, one entry a candidate.
        pairs: dict from two groups' indices to a matrix.
    """

    constant: float = 0.0
    linear: dict = dataclasses.field(default_factory=dict)
    pairs: dict = dataclasses.field(default_factory=dict)

    def add(self, weights, inputs, function):
        """Adds `function(weight bits, input bits)`.

        Args:
            weights: `(index, candidates)`; the index is `None` where the
                only candidate is fixed.
            inputs: the same of the tensor that is read.
            function: of two numbers of bits.
        """
        (g, weight_bits), (h, input_bits) = weights, inputs
        table = np.array(
            [[function(b, a) for a in input_bits] for b in weight_bits],
            dtype="float64",
        )
        if g is not None and h is not None:
            self.pairs[g, h] = self.pairs.get((g, h), 0.0) + table
        elif g is not None:
            self.linear[g] = self.linear.get(g, 0.0) + table[:, 0]
        elif h is not None:
            self.linear[h] = self.linear.get(h, 0.0) + table[0]
        else:
            self.constant += float(table[0, 0])

    def value(self, assignment):
        """The row at certain candidates, a number."""
        return (
            self.constant
            + sum(v[assignment[g]] for g, v in self.linear.items())
            + sum(
                m[assignment[g], assignment[h]]
                for (g, h), m in self.pairs.items()
            )
        )

    def expected(self, probabilities):
        """The row in expectation over independent choices, a tensor."""
        total = ops.convert_to_tensor(self.constant, dtype="float32")
        for g, vector in self.linear.items():
            total += ops.sum(probabilities[g] * _constant(vector))
        for (g, h), matrix in self.pairs.items():
            outer = probabilities[g][:, None] * probabilities[h][None, :]
            total += ops.sum(outer * _constant(matrix))
        return total


@dataclasses.dataclass(frozen=True)
class CostModel:
    """A cost of a search space.

    Attributes:
        name: what `Budget` calls it.
        unit: for people.
        rows: list of `Row`.
    """

    name: str
    unit: str
    rows: list

    def value(self, assignment):
        """The cost at an index of a candidate for each group."""
        return max(row.value(assignment) for row in self.rows)

    def expected(self, probabilities):
        """The cost in expectation; the largest row's, where there are more."""
        values = [row.expected(probabilities) for row in self.rows]
        return values[0] if len(values) == 1 else ops.max(ops.stack(values))


def _constant(array):
    return ops.convert_to_tensor(np.asarray(array), dtype="float32")


def _weights_of(space, site):
    if site.weights is None:
        return None, (site.weight_bits,)
    return site.weights, space.groups[site.weights].bits


def _inputs_of(space, site):
    if site.inputs is None:
        return None, (site.input_bits,)
    return site.inputs, space.groups[site.inputs].bits


def bit_operations(space):
    """MACs x weight bits x input bits, as `layer_costs` counts them."""
    row = Row()
    for site in space.sites:
        row.add(
            _weights_of(space, site),
            _inputs_of(space, site),
            lambda b, a: site.macs * b * a,
        )
    return CostModel("bops", "bit operations", [row])


def file_bytes(space):
    """Bytes of a LiteRT file: what is stored, and what the format adds."""
    row = stored(space).rows[0]
    row.constant += file_overhead(space)
    return CostModel("bytes", "bytes", [row])


def stored(space):
    """Bytes of weights, scales and biases, as `layer_costs` counts them."""
    row = Row()
    for layer, weights in _once_per_layer(space):
        if weight_axes(layer):
            row.add(weights, (None, (0,)), lambda b, _: stored_bytes(layer, b))
        else:  # a custom layer: its codes take bytes
            config = space.plan.config_of(layer)
            names = config.weights if config is not None else ()
            row.constant += sum(
                math.prod(weight(layer, name).shape) for name in names
            )
    return CostModel("stored_bytes", "bytes", [row])


def float_bytes(space):
    """Bytes of the weights and biases of the float model."""
    return sum(
        stored_bytes(layer, FLOAT_BITS)
        for layer, _ in _once_per_layer(space)
        if weight_axes(layer)
    )


def average_bits(space):
    """Bits of a weight, on average over all weights that are quantized."""
    row, total = Row(), 0
    for layer, weights in _once_per_layer(space):
        size = sum(
            math.prod(weight(layer, name).shape) for name in weight_axes(layer)
        )
        if weights[1] != (FLOAT_BITS,):
            row.add(weights, (None, (0,)), lambda b, _: size * b)
            total += size
    row.constant /= max(total, 1)
    row.linear = {g: v / max(total, 1) for g, v in row.linear.items()}
    return CostModel("average_bits", "bits", [row])


def latency(space, table):
    """Seconds of one inference by a `LatencyTable`."""
    row = Row()
    table.check(space)
    for site in space.sites:
        if site.site is not None:
            row.add(
                _weights_of(space, site),
                _inputs_of(space, site),
                lambda b, a: table.seconds(site.layer, site.site, b, a),
            )
    return CostModel("latency", "seconds", [row])


def activation_bytes(space, is_float=False):
    """Peak bytes of the tensors that exist at one moment, for one sample.

    An integer file holds every quantized tensor in bytes, whatever its bits,
    so with the target `"litert"` this is a constant of the network. With
    `"paper"` a tensor that only one group reads has that group's bits, and
    one that something else reads too is float.
    """
    graph = space.plan.graph
    sizes, last, first = {}, {}, {}
    for step, site in enumerate(graph.sites):
        for value in site.outputs:
            first[value] = step
        for value in site.inputs:
            last[value] = step
    for value in graph.inputs:
        first[value] = 0
    for value in first:
        if graph.is_output(value):
            last[value] = len(graph.sites)
        if value in last and not _in_place(graph, value):
            sizes[value] = math.prod(n or 1 for n in value.shape[1:])
    rows, seen = [], set()
    for step in range(len(graph.sites)):
        live = [v for v in sizes if first[v] <= step <= last[v]]
        if frozenset(live) in seen:
            continue
        seen.add(frozenset(live))
        row = Row()
        for value in live:
            group = None, (FLOAT_BITS,)
            if not is_float:
                group = _reading_group(space, value)
            row.add(
                (None, (0,)),
                group,
                lambda _, a: math.ceil(sizes[value] * a / 8),
            )
        rows.append(row)
    return CostModel("activation_bytes", "bytes", rows or [Row()])


def _in_place(graph, value):
    """Whether a value is overwritten by the one operation that reads it."""
    readers = graph.consumers(value)
    if len(readers) != 1 or graph.is_output(value) or value.producer is None:
        return False
    operation = readers[0].operation
    return (
        roles.is_batch_norm(operation)
        or roles.is_relu(operation)
        or roles.keeps_grid(operation)
    )


def _reading_group(space, value):
    """`(index, candidates)` of the bits in which a tensor is held."""
    if space.target == "litert":
        for site in space.plan.graph.consumers(value):
            if site.inputs[0] is value:
                found = read_quantizer(space.plan, site)
                if found != FLOAT_BITS:
                    return None, (8,)
        return None, (8,) if space.plan.graph.is_output(value) else (32,)
    readers = list(_readers(space.plan.graph, value))
    reading = [s for s in space.sites if s.site in readers]
    groups = {_inputs_of(space, site) for site in reading}
    if len(reading) == len(readers) and len(groups) == 1:
        return groups.pop()
    return None, (FLOAT_BITS,)


def _readers(graph, value):
    """The sites that read a value, beyond those that only move it."""
    for site in graph.consumers(value):
        if roles.keeps_grid(site.operation):
            for output in site.outputs:
                yield from _readers(graph, output)
        else:
            yield site


def _once_per_layer(space):
    seen = set()
    for site in space.sites:
        if id(site.layer) not in seen:
            seen.add(id(site.layer))
            yield site.layer, _weights_of(space, site)
