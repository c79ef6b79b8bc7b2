"""Cost of a quantized model: multiplications, bit operations, bytes.

Bit operations (BOPs) are counted as in the released code of SAQ (arXiv
2111.12273, ziplab/SAQ) and in EdMIPS:

    BOPs = K * K * C_in * (C_out / groups) * H_out * W_out * b_w * b_a

for each layer with weights; batch normalization, activations and additions
are not counted, and the first layer's input counts as 8 bits whether or not
it is quantized.
"""

import dataclasses
import math

from keras import layers

from keras_saq.layers import Quantized
from keras_saq.layers import kinds
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.layers.storage import stored_bytes
from keras_saq.models.graph import Graph

_INPUT_BITS = 8


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer with weights.

    Attributes:
        path: the layer's path.
        layer_type: name of the float layer's class.
        weight_bits: bits of a weight, 32 for float.
        activation_bits: bits of the tensor that the layer reads.
        macs: multiplications of one inference.
        bops: bit operations of one inference.
        stored_bytes: bytes of weights, scales and bias in a LiteRT file.
    """

    path: str
    layer_type: str
    weight_bits: int
    activation_bits: int
    macs: int
    bops: int
    stored_bytes: int


def layer_costs(model):
    """A `LayerCost` for each call of a layer with weights.

    Args:
        model: a Functional or Sequential model, quantized or not, with a
            static input size.

    Returns:
        List in the order of the graph.
    """
    costs = []
    seen = set()
    for site in Graph(model).sites:
        layer = site.operation
        if not kinds.is_weighted(layer):
            continue
        weight_bits, activation_bits = _bits(site)
        macs = _macs(layer, site.inputs[0].shape, site.outputs[0].shape)
        costs.append(
            LayerCost(
                path=site.path,
                layer_type=getattr(layer, "_float_class", type(layer)).__name__,
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                macs=macs,
                bops=macs * weight_bits * activation_bits,
                stored_bytes=0
                if id(layer) in seen
                else stored_bytes(layer, weight_bits),
            )
        )
        seen.add(id(layer))
    return costs


def _bits(site):
    layer = site.operation
    if not isinstance(layer, Quantized):
        return FLOAT_BITS, FLOAT_BITS
    (quantizer,) = layer.quantize_config.weights.values()
    return quantizer.num_bits, _input_bits(site)


def _input_bits(site):
    if site.operation.input_quantizer is not None:
        return site.operation.input_quantizer.num_bits
    value = site.inputs[0]
    while value.producer is not None:
        maker = value.producer.operation
        if isinstance(maker, Quantized) and maker.output_quantizer:
            return maker.output_quantizer.num_bits
        if not kinds.is_transparent(maker):
            return FLOAT_BITS
        if isinstance(maker, Quantized) and maker.input_quantizer:
            return maker.input_quantizer.num_bits
        value = value.producer.inputs[0]
    return _INPUT_BITS


def _macs(layer, input_shape, output_shape):
    kernel = math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Dense):
        return kernel * math.prod(output_shape[1:-1])
    channels_first = layer.data_format == "channels_first"
    spatial = output_shape[2:] if channels_first else output_shape[1:-1]
    if None in spatial:
        raise ValueError(
            f"The layer '{layer.name}' has no static output size: "
            f"{output_shape}. Build the model with a fixed input shape to "
            "count its operations."
        )
    return kernel * math.prod(spatial)
