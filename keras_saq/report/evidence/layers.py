"""What was quantized: bits, bytes and bit operations, and what stayed."""

import dataclasses
import math

from keras import ops

from keras_saq.layers.hidden import float_class
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.layers.storage import stored_bytes
from keras_saq.models.wrapper import inner_model
from keras_saq.policy import layer_paths
from keras_saq.quantizers import Quantizer
from keras_saq.report.summary import summary


def describe(model):
    """Dict: the model as a whole.

    Args:
        model: a Keras model, quantized or float.
    """
    inside = inner_model(model)
    found = summary(inside, print_fn=False)
    parameters = _num_parameters(inside)
    sizes = _weights_by_bits(inside)
    total = sum(sizes.values())
    quantized = {b: n for b, n in sizes.items() if b != FLOAT_BITS}
    return {
        "name": inside.name,
        "type": float_class(type(inside)).__name__,
        "parameters": parameters,
        "float_bytes": 4 * parameters,
        "stored_bytes": found.stored_bytes,
        "float_stored_bytes": _float_stored_bytes(inside),
        "macs": found.macs,
        "bops": found.bops,
        "float_bops": found.macs * FLOAT_BITS**2,
        "weights_by_bits": {str(b): sizes[b] for b in sorted(sizes)},
        "quantized_weight_share": (
            sum(quantized.values()) / total if total else 0.0
        ),
        "mean_weight_bits": (
            sum(b * n for b, n in sizes.items()) / total if total else None
        ),
        "layers": [dataclasses.asdict(row) for row in found.rows],
        "stays_in_float": [dataclasses.asdict(row) for row in found.floats],
        "comparison": found.comparison and found.comparison.to_dict(),
    }


def _num_parameters(model):
    """Float parameters, without those of quantizers."""
    own = {
        id(variable)
        for layer in model._flatten_layers()
        if isinstance(layer, Quantizer)
        for variable in layer.variables
    }
    return sum(
        math.prod(variable.shape)
        for variable in model.weights
        if id(variable) not in own
    )


def _float_stored_bytes(model):
    """Bytes of what `stored_bytes` counts, were it all float32."""
    size, seen = 0, set()
    for _, layer in layer_paths(model):
        if layer in seen or not is_weighted(layer) or not layer.built:
            continue
        # The cell of a recurrent layer is counted with it.
        seen.update(layer._flatten_layers())
        if weight_axes(layer):
            size += stored_bytes(layer, FLOAT_BITS)
        else:  # a custom layer
            weights = (v for _, v, _ in layer.quantized_weights())
            size += 4 * sum(math.prod(v.shape) for v in weights)
    return size


def _weights_by_bits(model):
    """How many weights have how many bits; biases are not counted."""
    sizes, seen = {}, set()
    for _, layer in layer_paths(model):
        if not is_weighted(layer) or not layer.built:
            continue
        quantizers = (
            dict(getattr(layer, "quantize_config", None).weights)
            if (hasattr(layer, "quantize_config"))
            else {}
        )
        for name in [*quantizers] or weight_axes(layer):
            variable = weight(layer, name)
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            bits = FLOAT_BITS
            if name in quantizers:
                bits = int(quantizers[name].num_bits)
            size = math.prod(ops.shape(variable))
            sizes[bits] = sizes.get(bits, 0) + size
    return sizes
