"""What a graph says about its tensors: who holds the quantizer of which.

In the `"litert"` scheme every tensor between integer kernels has exactly one
quantizer, at the last layer of the group that one kernel computes (Conv -> BN
-> ReLU is quantized after the ReLU only). Two consumers of a tensor read the
same integers, as they will in the file.
"""

from keras_saq.layers import roles
from keras_saq.layers.roles import has_integer_bias


class Dataflow:
    """Questions about the values of a graph, under the bits of a policy.

    Args:
        graph: a `Graph`.
        bits: a resolved `BitsTable`.
        stream_bits: bits of tensors that no weighted layer reads.
    """

    def __init__(self, graph, bits, stream_bits):
        self.graph = graph
        self._bits = bits
        self._stream_bits = stream_bits
        self._unsigned = {}
        # Ids of the layers that the model consists of.
        self._lasting = {id(layer) for layer in graph.model._flatten_layers()}
        # Ids of layers that quantize their own input.
        self.requantizing = set()
        # Ids of layers whose own configuration quantizes their output.
        self.custom_outputs = set()

    # --- Sites

    def can_hold(self, site):
        """Whether an output quantizer can be put where a value is made.

        An operation inside of somebody's `call` is no object that could hold
        one, nor is a layer that is made anew in each call; the layers that
        read its result quantize it, and what a layer makes that the policy
        keeps in float.
        """
        if self._bits.is_float(site):
            return False
        return site.owner is None or id(site.operation) in self._lasting

    def is_called_apart(self, layer):
        """Whether a layer is called at several nodes, each with a scale."""
        nodes = [site.node for site in self.graph.sites_of(layer)]
        return None not in nodes and len({id(node) for node in nodes}) > 1

    def is_integer(self, site):
        """Whether the operation reads and writes integers in the file."""
        operation = site.operation
        bits = self._bits.of(operation)
        if bits is not None:
            return bits.rule.config is None and bits.activations is not None
        if self._bits.is_float(site):
            return False
        if site.closed is not None or not self._bits.has_activations:
            return False
        if roles.is_product(operation):
            return self._bits.of_product(site) is not None
        if roles.is_concatenate(operation) and not any(
            map(self.is_read_as_integers, site.outputs)
        ):
            # Each part keeps a scale of its own: boxes beside scores.
            return False
        return roles.is_integer(operation) or self.is_scaling(site)

    def is_scaling(self, site):
        """Whether a value is only multiplied by a number: a scaled grid."""
        return len(site.inputs) == 1 and roles.family(site.operation) in (
            "divide",
            "multiply",
        )

    def keeps_grid(self, site):
        """Whether the output is on the grid of the input, or on a scaled one.

        Within a composite only: elsewhere the scaled value has a quantizer
        of its own.
        """
        if roles.keeps_grid(site.operation):
            return True
        return not self.can_hold(site) and self.is_scaling(site)

    def has_float_activation(self, layer):
        return has_integer_bias(layer) and (
            roles.activation_of(layer) == "other"
        )

    # --- Values

    def is_on_a_grid(self, value):
        """Whether a value is, or is the plain result of, quantized codes."""
        site = value.producer
        if site is None:
            return False
        if self.keeps_grid(site):
            if id(site.operation) in self.requantizing:
                return True
            return self.is_on_a_grid(site.inputs[0])
        return self.is_quantized_at(value)

    def quantized_value(self, value):
        """The value whose quantizer a transparent chain hands on."""
        while value.producer and self.keeps_grid(value.producer):
            if id(value.producer.operation) in self.requantizing:
                break
            value = value.producer.inputs[0]
        return value

    def is_quantized_at(self, value):
        """Whether the layer that makes a value quantizes its output."""
        site = value.producer
        if not value.is_real or not self.can_hold(site):
            return False
        if self.keeps_grid(site):
            return False
        bits = self._bits.of(site.operation)
        if bits is not None and bits.rule.config is not None:
            return id(site.operation) in self.custom_outputs
        if len(site.outputs) != 1 and not self.is_integer(site):
            return False
        if self.is_integer(site) and not self.has_float_activation(
            site.operation
        ):
            return not self.is_fused_onward(value)
        # Computed in float: quantized for those that read integers.
        return self.is_read_as_integers(value)

    def is_read_as_integers(self, value):
        """Whether an integer kernel reads the value."""
        for site in self.graph.consumers(value):
            if self.keeps_grid(site):
                if any(map(self.is_read_as_integers, site.outputs)):
                    return True
            elif self.is_integer(site):
                return True
        return False

    def is_wanted_as_integers(self, site):
        """Whether an integer kernel, or the user, reads what a site makes."""
        return any(
            self.is_read_as_integers(value)
            or self.graph.is_output(value)
            and not self._is_joined_in_float(value)
            for value in site.outputs
        )

    def _is_joined_in_float(self, value):
        """Whether a value has parts on several grids, moved at most."""
        maker = self.quantized_value(value).producer
        return (
            maker is not None
            and roles.is_concatenate(maker.operation)
            and not self.is_integer(maker)
        )

    def is_fused_onward(self, value):
        """Whether the one layer that reads a value computes with its maker."""
        consumers = self.graph.consumers(value)
        if len(consumers) != 1 or self.graph.is_output(value):
            return False
        site, reader = value.producer, consumers[0].operation
        maker = site.operation
        if not self.can_hold(consumers[0]):
            return False
        if roles.is_concatenate(reader) and not self.is_integer(consumers[0]):
            return False
        if roles.is_concatenate(reader):
            # The concatenation's quantizer serves each of its inputs.
            return self._writes_any_grid(
                maker
            ) and not self.has_float_activation(maker)
        if roles.is_batch_norm(reader):
            return (
                has_integer_bias(maker)
                and roles.activation_of(maker) == "linear"
                and not getattr(reader, "renorm", False)
                and len(self.graph.sites_of(reader)) == 1
            )
        return roles.is_relu(reader) and (
            roles.is_batch_norm(maker)
            or roles.is_add(maker)
            or has_integer_bias(maker)
            and roles.activation_of(maker) == "linear"
        )

    def is_fused_into_producer(self, site):
        """Whether a site computes with the layer that makes its input."""
        value = site.inputs[0]
        producer = value.producer
        if producer is None or not self.is_integer(producer):
            return False
        if self.has_float_activation(producer.operation):
            return False
        return self.is_fused_onward(value)

    def value_bits(self, value):
        """The most bits that any consumer wants."""
        stream_bits = self._stream_bits
        wanted = [stream_bits] if self.graph.is_output(value) else []
        for site in self.graph.consumers(value):
            bits = self._bits.of(site.operation)
            if self.keeps_grid(site):
                wanted += map(self.value_bits, site.outputs)
            elif bits is not None:
                wanted.append(bits.activations or 0)
            elif roles.is_product(site.operation):
                wanted.append(self._bits.of_product(site) or stream_bits)
            else:
                wanted.append(stream_bits)
        return max(wanted, default=0) or stream_bits

    def is_unsigned(self, value):
        """Whether the graph says that no element can be negative."""
        if value not in self._unsigned:
            self._unsigned[value] = self._find_unsigned(value)
        return self._unsigned[value]

    def _find_unsigned(self, value):
        site = value.producer
        if site is None:
            return False
        unsigned = roles.unsigned(site.operation)
        if unsigned != roles.AS_INPUTS:
            return unsigned == roles.ALWAYS
        if roles.keeps_grid(site.operation):
            return self.is_unsigned(site.inputs[0])
        return all(map(self.is_unsigned, site.inputs))

    @staticmethod
    def _writes_any_grid(layer):
        """Whether its kernel rounds to the grid that it is given."""
        return (
            has_integer_bias(layer)
            or roles.is_batch_norm(layer)
            or roles.is_relu(layer)
            or roles.is_add(layer)
        )
