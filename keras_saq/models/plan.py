"""Which quantizers a policy puts where: one `QuantizeConfig` per layer.

In the `"litert"` scheme every tensor between integer kernels has exactly one
quantizer, at the last layer of the group that one kernel computes (Conv -> BN
-> ReLU is quantized after the ReLU only). Two consumers of a tensor read the
same integers, as they will in the file. A tensor that no layer makes (a model
input) is quantized by the layer that reads it, and so is a tensor that a
layer wants with fewer bits than another consumer does.
"""

import dataclasses

import keras

from keras_saq.layers import kinds
from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import LSQ

NO_RULE = "no rule of the policy matches its path and type"
UNKNOWN_LAYER = "no quantizer is known for this layer"
UNKNOWN_ACTIVATION = "its activation has no integer form here"
NOT_A_LAYER = "it is an operation, not a layer, and cannot hold a quantizer"


@dataclasses.dataclass(frozen=True)
class FloatLayer:
    """A layer that stays in float, and why."""

    path: str
    layer_type: str
    reason: str


class Plan:
    """Resolves a policy on a graph.

    Attributes:
        configs: dict from `id(layer)` to its `QuantizeConfig`.
        floats: list of `FloatLayer`.
        num_weighted: number of layers whose weights are quantized.
    """

    def __init__(self, graph, policy):
        self.configs = {}
        self.floats = []
        self._graph = graph
        self._policy = policy
        self._bits = self._resolve_bits()
        self.num_weighted = len(self._bits)
        self._unsigned = {}
        for site in graph.sites:
            self._place(site)

    def _resolve_bits(self):
        """Weight and activation bits by `id` of each weighted layer."""
        graph, policy = self._graph, self._policy
        outer = _next_to_inputs(graph) | _next_to_outputs(graph)
        bits = {}
        for site in graph.sites:
            layer = site.operation
            if not kinds.is_weighted(layer):
                continue
            rule = policy.rule_for(site.path, type(layer).__name__)
            if rule is None:
                self._keep_float(site, NO_RULE)
                continue
            weight_bits, activation_bits = (
                rule.weight_bits,
                rule.activation_bits,
            )
            if policy.first_last_bits is not None and id(layer) in outer:
                weight_bits = activation_bits = policy.first_last_bits
            bits[id(layer)] = (weight_bits, activation_bits)
        return bits

    def _keep_float(self, site, reason):
        layer_type = type(site.operation).__name__
        self.floats.append(FloatLayer(site.path, layer_type, reason))

    def _place(self, site):
        layer = site.operation
        if not isinstance(layer, keras.layers.Layer):
            return self._keep_float(site, NOT_A_LAYER)
        weighted = kinds.is_weighted(layer)
        if weighted and id(layer) not in self._bits:
            return None
        if not weighted and not _is_known(layer):
            if isinstance(layer, (keras.layers.ReLU, keras.layers.Activation)):
                return self._keep_float(site, UNKNOWN_ACTIVATION)
            return self._keep_float(site, UNKNOWN_LAYER)
        config = self.configs.setdefault(id(layer), QuantizeConfig())
        if weighted and not config.weights:
            weight_bits, _ = self._bits[id(layer)]
            config.weights = {
                name: LSQ(
                    weight_bits,
                    narrow_range=True,
                    channel_axes=axes,
                    name=f"{name}_quantizer",
                )
                for name, axes in kinds.weight_axes(layer).items()
            }
        if self._policy.scheme == "paper":
            self._place_paper(site, config)
        else:
            self._place_litert(site, config)
        return None

    def _place_paper(self, site, config):
        """An input quantizer at each weighted layer but the first."""
        layer = site.operation
        first = all(v.producer is None for v in site.inputs)
        if kinds.is_weighted(layer) and config.inputs is None and not first:
            config.inputs = LSQ(
                self._bits[id(layer)][1], signed=None, name="input_quantizer"
            )

    def _place_litert(self, site, config):
        layer = site.operation
        (output,) = site.outputs
        shared = len(self._graph.sites_of(layer)) > 1
        if kinds.is_weighted(layer):
            # With a batch norm behind, the bias is rounded there.
            config.bias_grid = not any(
                kinds.is_batch_norm(reader.operation)
                and self._is_fused_onward(output)
                for reader in self._graph.consumers(output)
            )
        elif kinds.is_batch_norm(layer):
            config.bias_grid = not shared and not getattr(
                layer, "renorm", False
            )
        if config.inputs is None and self._needs_input_quantizer(site, shared):
            config.inputs = LSQ(
                self._input_bits(site),
                signed=None,
                name="input_quantizer",
            )
        if self._has_float_activation(layer):
            if config.logits is None:
                config.logits = LSQ(
                    self._policy.stream_bits, name="logits_quantizer"
                )
        elif config.outputs is None and self._is_quantized_at(output):
            config.outputs = LSQ(
                self._value_bits(output),
                signed=not self._is_unsigned(output),
                name="output_quantizer",
            )

    def _needs_input_quantizer(self, site, shared):
        layer = site.operation
        if kinds.is_merge(layer) and not kinds.is_add(layer):
            return False  # its output quantizer serves each of its inputs
        if not all(self._is_on_a_grid(v) for v in site.inputs):
            return not self._is_fused_into_producer(site)
        if not kinds.is_weighted(layer):
            return False
        (value,) = site.inputs
        return shared or self._bits[id(layer)][1] < self._value_bits(
            self._quantized_value(value)
        )

    def _input_bits(self, site):
        layer = site.operation
        if kinds.is_weighted(layer):
            return self._bits[id(layer)][1]
        if kinds.is_transparent(layer):
            return self._value_bits(site.outputs[0])
        return self._policy.stream_bits

    # --- Values

    def _is_on_a_grid(self, value):
        """Whether a value is, or is the plain result of, quantized codes."""
        producer = value.producer
        if producer is None:
            return False
        layer = producer.operation
        if kinds.is_transparent(layer):
            config = self.configs.get(id(layer))
            if config is not None and config.inputs is not None:
                return True
            return self._is_on_a_grid(producer.inputs[0])
        return self._is_quantized_at(value)

    def _quantized_value(self, value):
        """The value whose quantizer a transparent chain hands on."""
        while value.producer and kinds.is_transparent(value.producer.operation):
            config = self.configs.get(id(value.producer.operation))
            if config is not None and config.inputs is not None:
                break
            value = value.producer.inputs[0]
        return value

    def _is_quantized_at(self, value):
        """Whether the layer that makes a value quantizes its output."""
        layer = value.producer.operation
        if not isinstance(layer, keras.layers.Layer):
            return False
        if kinds.is_weighted(layer) and id(layer) not in self._bits:
            return False
        if not _is_known(layer) or kinds.is_transparent(layer):
            return False
        if self._has_float_activation(layer):
            return False
        return not self._is_fused_onward(value)

    def _is_fused_onward(self, value):
        """Whether the one layer that reads a value computes with its maker."""
        consumers = self._graph.consumers(value)
        if len(consumers) != 1 or self._graph.is_output(value):
            return False
        maker, reader = value.producer.operation, consumers[0].operation
        if kinds.is_merge(reader) and not kinds.is_add(reader):
            # The concatenation's quantizer serves each of its inputs.
            return not kinds.is_average(maker) and (
                kinds.is_add(maker) or not kinds.is_merge(maker)
            )
        if kinds.is_batch_norm(reader):
            return (
                kinds.is_weighted(maker)
                and kinds.activation_of(maker) == "linear"
                and not getattr(reader, "renorm", False)
                and len(self._graph.sites_of(reader)) == 1
            )
        return kinds.is_relu(reader) and (
            kinds.is_batch_norm(maker)
            or kinds.is_add(maker)
            or kinds.is_weighted(maker)
            and kinds.activation_of(maker) == "linear"
        )

    def _is_fused_into_producer(self, site):
        (value,) = site.inputs[:1]
        producer = value.producer
        if producer is None or not isinstance(
            producer.operation, keras.layers.Layer
        ):
            return False
        if not _is_known(producer.operation):
            return False
        if self._has_float_activation(producer.operation):
            return False
        return self._is_fused_onward(value)

    def _has_float_activation(self, layer):
        return kinds.is_weighted(layer) and (
            kinds.activation_of(layer) == "other"
        )

    def _value_bits(self, value):
        """The most bits that any consumer wants."""
        graph, stream_bits = self._graph, self._policy.stream_bits
        wanted = [stream_bits] if graph.is_output(value) else []
        for site in graph.consumers(value):
            layer = site.operation
            if kinds.is_transparent(layer):
                wanted.append(self._value_bits(site.outputs[0]))
            elif id(layer) in self._bits:
                wanted.append(self._bits[id(layer)][1])
            else:
                wanted.append(stream_bits)
        return max(wanted, default=stream_bits)

    def _is_unsigned(self, value):
        """Whether the graph says that no element can be negative."""
        if value not in self._unsigned:
            self._unsigned[value] = self._find_unsigned(value)
        return self._unsigned[value]

    def _find_unsigned(self, value):
        site = value.producer
        if site is None or not isinstance(site.operation, keras.layers.Layer):
            return False
        layer = site.operation
        if kinds.is_transparent(layer) or kinds.is_average(layer):
            return self._is_unsigned(site.inputs[0])
        if kinds.is_merge(layer):
            return all(self._is_unsigned(v) for v in site.inputs)
        return kinds.activation_of(layer) in ("relu", "relu6")


def _is_known(layer):
    return (
        kinds.is_weighted(layer)
        or kinds.is_batch_norm(layer)
        or kinds.is_relu(layer)
        or kinds.is_merge(layer)
        or kinds.is_average(layer)
        or kinds.is_transparent(layer)
    )


def _next_to_inputs(graph):
    """Ids of weighted layers that no weighted layer comes before."""
    return _first_weighted(
        (site.operation, site.inputs, site.outputs) for site in graph.sites
    )


def _next_to_outputs(graph):
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
        if kinds.is_weighted(layer):
            if not reached:
                found.add(id(layer))
            reached = True
        if reached:
            behind.update(after)
    return found
