"""How a LiteRT file stores the weights of a layer."""

import math

from keras_saq.layers.roles import is_lookup
from keras_saq.layers.roles import is_packable
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes

FLOAT_BITS = 32
PACKED_BITS = (2, 4, 8)


def storage_bits(layer, weight_bits, name=None):
    """Bits that one code takes in the file: 2, 4 or 8.

    Args:
        layer: a layer with weights.
        weight_bits: bits of its codes.
        name: which of its weights, where it has several.
    """
    if weight_bits == FLOAT_BITS:
        return FLOAT_BITS
    if not is_packable(layer, name):
        return 8
    depth = _depth(layer, name)
    return next(
        bits
        for bits in PACKED_BITS
        if weight_bits <= bits and depth * bits % 8 == 0
    )


def _depth(layer, name):
    """Codes in a row; the kernels that read packed ones want whole bytes."""
    ((first, axes), *others) = weight_axes(layer).items()
    if others:
        axes = dict(others)[name]
        first = name
    shape = tuple(weight(layer, first).shape)
    rows = math.prod(shape[axis] for axis in axes)
    return math.prod(shape) // rows


def stored_bytes(layer, weight_bits):
    """Bytes of a layer's weights, scales and bias in the file."""
    size = 0
    for name, axes in weight_axes(layer).items():
        bits = storage_bits(layer, weight_bits, name)
        shape = tuple(weight(layer, name).shape)
        size += -(-math.prod(shape) * bits // 8)
        num_scales = math.prod(shape[axis] for axis in axes)
        if bits != FLOAT_BITS:
            # A float32 scale per channel, and an int32 bias: folding a batch
            # normalization gives every kernel one. A lookup has none.
            size += num_scales * (4 if is_lookup(layer) else 8)
        elif getattr(layer, "use_bias", False):
            size += 4 * num_scales
    return size
