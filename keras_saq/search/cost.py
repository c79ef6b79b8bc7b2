"""Cost of a quantized model: multiplications, bit operations, bytes.

Bit operations (BOPs) are counted as in the released code of SAQ (arXiv
2111.12273, ziplab/SAQ) and in EdMIPS:

    BOPs = K * K * C_in * (C_out / groups) * H_out * W_out * b_w * b_a

for each layer with weights; batch normalization, activations, additions and
the products inside of attention are not counted, and the first layer's input
counts as 8 bits whether or not it is quantized.
"""

import dataclasses
import math

from keras import ops

from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.hidden import float_class
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.layers.storage import stored_bytes
from keras_saq.models.graph import Graph
from keras_saq.policy import layer_paths

INPUT_BITS = 8
# Families whose multiplications are counted in a way of their own.
_CONVOLUTIONS = ("conv", "conv_3d")
_RECURRENT = ("conv_lstm", "gru", "lstm", "rnn", "simple_rnn")
_TRANSPOSED = ("transposed", "transposed_3d")


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer with weights.

    Attributes:
        path: the layer's path.
        layer_type: name of the float layer's class.
        weight_bits: bits of a weight, 32 for float.
        activation_bits: bits of the tensor that the layer reads, 32 for
            float.
        granularity: what has a scale of its own, e.g. `"channel (64)"`.
        macs: multiplications of one inference.
        bops: bit operations of one inference.
        stored_bytes: bytes of weights, scales and bias in a LiteRT file.
        zero_share: share of the weights that are zero.
    """

    path: str
    layer_type: str
    weight_bits: int
    activation_bits: int
    granularity: str
    macs: int
    bops: int
    stored_bytes: int
    zero_share: float


def layer_costs(model, count_operations=True):
    """A `LayerCost` for each call of a layer with weights.

    Args:
        model: a Keras model of any kind, quantized or not, with a static
            input size.
        count_operations: whether to count multiplications, for which sizes
            have to be known; without, all of them are 0.

    Returns:
        List in the order of the graph. Layers that are called where the
        graph does not show it come last, with no multiplications.

    Example:

    >>> import keras
    >>> from keras_saq.search import layer_costs
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> (cost,) = layer_costs(model)
    >>> cost.macs, cost.bops  # 64 multiplications of 32 by 32 bits
    (64, 65536)
    """
    costs, seen = [], set()
    for site in Graph(model).sites:
        layer = site.operation
        if is_weighted(layer):
            macs = macs_of(site) if count_operations else 0
            costs.append(_cost(layer, site.path, site, macs, layer in seen))
            seen.update(layer._flatten_layers())
    for path, layer in layer_paths(model):
        if layer not in seen and is_weighted(layer) and layer.built:
            costs.append(_cost(layer, path, None, 0, False))
            seen.update(layer._flatten_layers())
    return costs


def _cost(layer, path, site, macs, is_repeated):
    weight_bits = _weight_bits(layer)
    activation_bits = FLOAT_BITS
    if weight_bits != FLOAT_BITS and site is not None:
        activation_bits = _input_bits(site)
    size = 0 if is_repeated else _stored_bytes(layer, weight_bits)
    return LayerCost(
        path=path,
        layer_type=float_class(type(layer)).__name__,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        granularity=_granularity(layer),
        macs=macs,
        bops=macs * weight_bits * activation_bits,
        stored_bytes=size,
        zero_share=_zero_share(layer),
    )


def _is_quantized(layer):
    return isinstance(layer, Quantized) and bool(layer.quantize_config.weights)


def _weight_bits(layer):
    if not _is_quantized(layer):
        return FLOAT_BITS
    return max(q.num_bits for q in layer.quantize_config.weights.values())


def _stored_bytes(layer, weight_bits):
    if weight_axes(layer):
        return stored_bytes(layer, weight_bits)
    # A custom layer: its codes take bytes.
    return sum(math.prod(v.shape) for _, v, _ in layer.quantized_weights())


def _granularity(layer):
    if not _is_quantized(layer):
        return "-"
    quantizer = list(layer.quantize_config.weights.values())[-1]
    count = math.prod(quantizer.scale.shape)
    if quantizer.group_size is not None:
        return f"group of {quantizer.group_size} ({count})"
    return f"channel ({count})" if quantizer.channel_axes else "tensor"


def _zero_share(layer):
    num_zeros = num_weights = 0
    if _is_quantized(layer):
        for _, variable, quantizer in layer.quantized_weights():
            value = ops.convert_to_numpy(quantizer(variable.value))
            num_zeros += (value == 0).sum()
            num_weights += value.size
    else:
        for name in weight_axes(layer):
            value = ops.convert_to_numpy(weight(layer, name))
            num_zeros += (value == 0).sum()
            num_weights += value.size
    return float(num_zeros / max(num_weights, 1))


def _input_bits(site):
    if site.operation.input_quantizer is not None:
        return site.operation.input_quantizer.num_bits
    value = site.inputs[0]
    while value.producer is not None:
        maker = value.producer.operation
        if isinstance(maker, Quantized) and maker.output_quantizer:
            return maker.output_quantizer.num_bits
        if not roles.keeps_grid(maker):
            return FLOAT_BITS
        if isinstance(maker, Quantized) and maker.input_quantizer:
            return maker.input_quantizer.num_bits
        value = value.producer.inputs[0]
    return INPUT_BITS


def macs_of(site):
    """Multiplications of a site: weights, times positions that use them."""
    layer = site.operation
    family = roles.family(layer)
    if roles.is_lookup(layer) or not weight_axes(layer):
        return 0
    output, source = site.outputs[0].shape, site.inputs[0].shape
    if family in _RECURRENT:
        return _num_weights(layer) * _recurrent_positions(site)
    if family in _TRANSPOSED:
        kernel = layer.kernel.shape
        return math.prod(kernel) * _size(site, source) // kernel[-1]
    if family in _CONVOLUTIONS:
        # (grouped convolutions have fewer weights, not fewer positions)
        return math.prod(layer.kernel.shape) * (
            _size(site, output) // layer.filters
        )
    total = 0
    for name, axes in weight_axes(layer).items():
        shape = weight(layer, name).shape
        channels = math.prod(shape[axis] for axis in axes)
        if name == "depthwise_kernel":
            spatial = _size(site, output) // layer.filters
            total += math.prod(shape) * spatial
        else:
            total += math.prod(shape) * _size(site, output) // channels
    return total


def _num_weights(layer):
    return sum(
        math.prod(weight(layer, name).shape) for name in weight_axes(layer)
    )


def _recurrent_positions(site):
    """Time steps, times pixels where the cell is a convolution."""
    shape = site.inputs[0].shape
    steps = _size(site, shape[:2])
    if roles.family(site.operation) == "conv_lstm":
        output = site.outputs[0].shape
        rank = len(shape) - 3
        steps *= math.prod(output[-1 - rank : -1])
    return steps


def _size(site, shape):
    """Elements of a tensor for one sample."""
    batch, *rest = shape
    if None in rest:
        raise ValueError(
            f"The layer '{site.operation.name}' has no static output size: "
            f"{shape}. Build the model with a fixed input shape to count its "
            "operations."
        )
    return (batch or 1) * math.prod(rest)
