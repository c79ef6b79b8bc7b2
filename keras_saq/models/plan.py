"""Which quantizers a policy puts where: one `QuantizeConfig` per layer.

Where a tensor's quantizer goes is decided in `keras_saq.models.dataflow`. A
tensor that no layer makes (a model input, the result of an operation inside
of somebody's `call`) is quantized by the layer that reads it, and so is a
tensor that a layer wants with fewer bits than another consumer does.
"""

import keras

from keras_saq.layers import resolve
from keras_saq.layers import roles
from keras_saq.layers.attention import can_unfuse
from keras_saq.layers.roles import accumulates
from keras_saq.layers.roles import has_integer_bias
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight_axes
from keras_saq.layers.storage import storage_bits
from keras_saq.models.bits import BitsTable
from keras_saq.models.dataflow import Dataflow
from keras_saq.models.graph import Graph
from keras_saq.models.model import FloatLayer
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import layer_paths
from keras_saq.policy import make_quantizer
from keras_saq.quantizers import check_role

NO_RULE = "no rule of the policy matches its path and type"
KEEP_FLOAT = "a rule of the policy keeps it in float"
UNKNOWN_LAYER = "no integer form is known for this layer"
UNKNOWN_ACTIVATION = "its activation is computed in float"
FLOAT_OPERATION = "the operation is computed in float"
# Down to so many bits a code more or less is worth having.
_FEW_BITS = 3
CLOSED = "its `call` cannot be followed symbolically"


class Plan:
    """Resolves a policy on a model.

    Attributes:
        graph: the model's `Graph`.
        configs: dict from `id(layer)` to its `QuantizeConfig`.
        before: dict from `(id of a node, number of one of its inputs)` to the
            quantizer of what this one call reads there.
        behind: dict from `id` of a node to the quantizer of what this one call
            makes. A layer that is called at several nodes has a scale for
            each of them; so has each operand of an operation.
        floats: list of `FloatLayer`.
        num_weighted: number of layers whose weights are quantized.
    """

    def __init__(self, model, policy):
        self.configs = {}
        self.before = {}
        self.behind = {}
        self.floats = []
        self._opened = set()
        self._policy = policy
        self._bits = BitsTable(policy, model)
        self.graph = Graph(model, is_leaf=self._bits.is_leaf)
        self._bits.resolve(self.graph)
        self._flow = Dataflow(self.graph, self._bits, policy.stream_bits)
        for site in self.graph.sites:
            self._place(site)
        self._place_unreached(model)
        self._open_attention(model)
        for layer, path in self._bits.unmatched:
            rule = policy.rule_for(path, layer)
            self._keep_float(path, layer, KEEP_FLOAT if rule else NO_RULE)
        self.num_weighted = self._bits.num_weighted()

    def config_of(self, operation):
        """The `QuantizeConfig` of a layer, `None` where it does nothing."""
        config = self.configs.get(id(operation))
        if config is not None and has_effect(config):
            return config
        return QuantizeConfig() if id(operation) in self._opened else None

    def _keep_float(self, path, layer, reason):
        row = FloatLayer(path, type(layer).__name__, reason)
        if row not in self.floats:
            self.floats.append(row)

    # --- Sites

    def _place(self, site):
        operation = site.operation
        bits = self._bits.of(operation)
        if bits is None and is_weighted(operation):
            return  # reported as unmatched
        config = self.configs.setdefault(id(operation), QuantizeConfig())
        if bits is not None and not config.weights:
            if bits.rule.config is not None:
                custom = resolve(bits.rule.config, operation)
                self.configs[id(operation)] = custom
                if custom.outputs is not None:
                    self._flow.custom_outputs.add(id(operation))
                return
            config.weights = self._weight_quantizers(operation, bits)
        if not self._flow.is_integer(site):
            self._report_float(site, bits)
        elif self._is_float_inside(site):
            self._keep_float(site.path, operation, UNKNOWN_ACTIVATION)
        if self._policy.scheme == "paper":
            self._place_paper(site, config, bits)
        else:
            self._place_litert(site, config, bits)

    def _is_float_inside(self, site):
        """Whether an activation in float stands between integers.

        The softmax behind the logits at a model's end stands behind them.
        """
        return self._flow.has_float_activation(site.operation) and not any(
            map(self.graph.is_output, site.outputs)
        )

    def _report_float(self, site, bits):
        if bits is not None or roles.is_concatenate(site.operation):
            return  # weight-only; and parts that are joined as they are
        if not self._bits.has_activations:
            return
        operation = site.operation
        if not any(value.is_real for value in site.outputs):
            return
        if self._bits.is_float(site):
            reason = KEEP_FLOAT
        elif site.closed is not None:
            reason = f"{CLOSED}: {site.closed}"
        elif not isinstance(operation, keras.layers.Layer):
            reason = FLOAT_OPERATION
        elif roles.family(operation) in ("relu", "function"):
            reason = UNKNOWN_ACTIVATION
        else:
            reason = UNKNOWN_LAYER
        self._keep_float(site.path, operation, reason)

    def _weight_quantizers(self, layer, bits):
        return {
            name: _make(
                "weights",
                self._policy.weight_quantizer_of(bits.rule),
                num_bits=bits.weights,
                narrow_range=True,
                oriented=is_oriented(layer, name, bits.weights),
                channel_axes=axes,
                name=f"{name.replace('.', '_')}_quantizer",
            )
            for name, axes in weight_axes(layer).items()
        }

    def _tensor_quantizer(self, num_bits, signed, name, bits=None):
        kind = (
            self._policy.activation_quantizer
            if bits is None
            else self._policy.activation_quantizer_of(bits.rule)
        )
        return _make(
            "activations",
            kind,
            num_bits=num_bits,
            signed=signed,
            name=name,
        )

    def _place_paper(self, site, config, bits):
        """An input quantizer at each weighted layer but the first."""
        first = all(value.producer is None for value in site.inputs)
        if bits is None or bits.activations is None or first:
            return
        if config.inputs is None and _reads_a_tensor(site.operation):
            config.inputs = self._tensor_quantizer(
                bits.activations, None, "input_quantizer", bits
            )

    def _place_litert(self, site, config, bits):
        flow, layer = self._flow, site.operation
        if not self._bits.has_activations:
            return
        if has_integer_bias(layer) and flow.is_integer(site):
            # With a batch norm behind, the bias is rounded there.
            # Called at several nodes, its bias is on several grids.
            config.bias_grid = not flow.is_called_apart(layer) and not any(
                roles.is_batch_norm(reader.operation)
                and flow.is_fused_onward(site.outputs[0])
                for reader in self.graph.consumers(site.outputs[0])
            )
        elif roles.is_batch_norm(layer):
            maker = site.inputs[0].producer
            config.bias_grid = (
                len(self.graph.sites_of(layer)) == 1
                and not getattr(layer, "renorm", False)
                and not (maker and flow.is_called_apart(maker.operation))
            )
        if not flow.can_hold(site):
            return
        if roles.is_separable(layer) and flow.is_integer(site):
            if config.inner is None:
                config.inner = self._tensor_quantizer(
                    bits.activations, None, "inner_quantizer", bits
                )
        if self._place_operands(site, bits):
            pass  # each has a quantizer of its own where it needs one
        elif config.inputs is None and self._needs_input_quantizer(site):
            config.inputs = self._tensor_quantizer(
                self._input_bits(site, bits), None, "input_quantizer", bits
            )
            flow.requantizing.add(id(layer))
        if config.inputs is None and self._reads_scores(site):
            config.inputs = self._tensor_quantizer(
                self._policy.stream_bits, True, "input_quantizer"
            )
        if flow.is_integer(site) and flow.has_float_activation(layer):
            if config.logits is None:
                config.logits = self._tensor_quantizer(
                    self._policy.stream_bits, True, "logits_quantizer", bits
                )
        is_quantized = any(map(flow.is_quantized_at, site.outputs))
        if flow.is_called_apart(layer) and len(site.outputs) == 1:
            if is_quantized:
                self.behind[id(site.node)] = self._tensor_quantizer(
                    flow.value_bits(site.outputs[0]),
                    self._output_sign(site),
                    "output_quantizer",
                    bits,
                )
        elif config.outputs is None and is_quantized:
            config.outputs = self._tensor_quantizer(
                max(map(flow.value_bits, site.outputs)),
                self._output_sign(site),
                "output_quantizer",
                bits,
            )

    def _output_sign(self, site):
        """Whether outputs can be negative; `None` leaves it to the data."""
        if all(map(self._flow.is_unsigned, site.outputs)):
            return False
        return True if self._flow.is_integer(site) else None

    def _place_operands(self, site, bits):
        """Quantizers in front of one call, of what is on no grid yet.

        Returns:
            Whether the call has several operands, or is one of several.
        """
        flow, layer = self._flow, site.operation
        if site.node is None or not (
            len(site.inputs) > 1 or flow.is_called_apart(layer)
        ):
            return False
        if not flow.is_integer(site) or not _reads_a_tensor(layer):
            return False
        if roles.is_concatenate(layer) or flow.is_fused_into_producer(site):
            return True
        if roles.keeps_grid(layer) and not flow.is_wanted_as_integers(site):
            return True  # float goes in and float comes out
        for number, value in enumerate(site.inputs):
            if not value.is_real:
                continue
            if flow.is_on_a_grid(value) and not (
                bits is not None
                and bits.activations
                < flow.value_bits(flow.quantized_value(value))
            ):
                continue
            self.before[id(site.node), number] = self._tensor_quantizer(
                self._input_bits(site, bits), None, "output_quantizer", bits
            )
            flow.requantizing.add(id(layer))
        return True

    def _needs_input_quantizer(self, site):
        flow, layer = self._flow, site.operation
        if not flow.is_integer(site) or not _reads_a_tensor(layer):
            return False
        if not all(value.is_real for value in site.inputs):
            return False
        if roles.is_concatenate(layer):
            return False  # its output quantizer serves each of its inputs
        if roles.keeps_grid(layer) and not flow.is_wanted_as_integers(site):
            return False  # float goes in and float comes out
        calls = self.graph.sites_of(layer)
        values = [value for call in calls for value in call.inputs]
        if not all(map(flow.is_on_a_grid, values)):
            return not flow.is_fused_into_producer(site)
        bits = self._bits.of(layer)
        if bits is None:
            return False
        read = [flow.quantized_value(call.inputs[0]) for call in calls]
        makers = {id(value.producer.operation) for value in read}
        wanted = max(map(flow.value_bits, read))
        return len(makers) > 1 or bits.activations < wanted

    def _reads_scores(self, site):
        """Whether it is a softmax of an integer product, as in attention.

        The softmax itself is computed in float; the product before it is an
        integer kernel, whose result needs a scale.
        """
        if not roles.is_softmax(site.operation):
            return False
        producer = site.inputs[0].producer
        return (
            producer is not None
            and roles.is_product(producer.operation)
            and self._flow.is_integer(producer)
            and not self._flow.can_hold(producer)
        )

    def _input_bits(self, site, bits):
        if bits is not None:
            return bits.activations
        if roles.keeps_grid(site.operation):
            return self._flow.value_bits(site.outputs[0])
        return self._policy.stream_bits

    # --- What no site shows

    def _place_unreached(self, model):
        """Layers that are called where the descent does not see it.

        In a composite that could not be followed, or with constants only.
        Each quantizes its own input; where there is none to see, its weights.
        """
        reached, closed = set(), set()
        for site in self.graph.sites:
            reached.add(id(site.operation))
            if site.closed is not None:
                closed |= _ids(site.operation)
            elif self._bits.of(site.operation) is not None:
                # The cell of an LSTM is quantized as a part of it.
                reached |= _ids(site.operation)
        for path, layer in layer_paths(model):
            if id(layer) in reached or not is_weighted(layer):
                continue
            if not layer.built:
                continue  # never called: it has no weights
            reached |= _ids(layer)
            self._bits.add(layer, path)
            bits = self._bits.of(layer)
            if bits is None:
                continue
            config = QuantizeConfig(self._weight_quantizers(layer, bits))
            if (
                id(layer) in closed
                and bits.activations is not None
                and _reads_a_tensor(layer)
            ):
                config.inputs = self._tensor_quantizer(
                    bits.activations, None, "input_quantizer", bits
                )
            self.configs[id(layer)] = config

    def _open_attention(self, model):
        """Finds the attention layers whose softmax is quantized."""
        for layer in model._flatten_layers():
            if can_unfuse(type(layer)) and not layer._flash_attention:
                softmax = self.configs.get(id(layer._softmax))
                if softmax is not None and softmax.outputs is not None:
                    self._opened.add(id(layer))


def is_oriented(layer, name, num_bits):
    """Whether all codes are used, with a sign per channel.

    Of few codes, one that is left out is missed. The sign takes a bit more,
    which is free wherever the file stores a code in more bits than it has;
    and batch norm may turn it around there.
    """
    return (
        num_bits <= _FEW_BITS
        and accumulates(layer)
        and storage_bits(layer, num_bits, name) > num_bits
    )


def _make(role, kind, **kwargs):
    return check_role(make_quantizer(kind, **kwargs), role)


def has_effect(config):
    """Whether a configuration changes anything of a layer."""
    return bool(
        config.weights
        or config.inputs
        or config.outputs
        or config.logits
        or config.inner
        or config.bias_grid
    )


def _ids(layer):
    """Ids of a layer and of all layers inside of it."""
    return {id(part) for part in layer._flatten_layers()}


def _reads_a_tensor(layer):
    """Whether its first input is made of real numbers, in one piece."""
    is_cell = roles.family(layer) == "recurrent_cell"
    return not (is_cell or roles.is_lookup(layer))
