"""How a LiteRT file stores the weights of a layer."""

import math

from keras import layers

from keras_saq.layers.weights import weight
from keras_saq.layers.weights import weight_axes

FLOAT_BITS = 32


def is_packable(layer):
    """Whether LiteRT has an exact kernel that reads packed 4- or 2-bit codes.

    That is FULLY_CONNECTED (Dense, EinsumDense, and 1x1 convolutions written
    as one) and the lookup in an embedding.
    """
    if isinstance(layer, (layers.Dense, layers.EinsumDense, layers.Embedding)):
        return True
    return (
        isinstance(layer, layers.Conv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) == (1, 1)
        and layer.groups == 1
    )


def storage_bits(layer, weight_bits):
    """Bits that one code takes in the file: 2, 4 or 8."""
    if weight_bits == FLOAT_BITS:
        return FLOAT_BITS
    if not is_packable(layer):
        return 8
    return next(bits for bits in (2, 4, 8) if weight_bits <= bits)


def stored_bytes(layer, weight_bits):
    """Bytes of a layer's weights, scales and bias in the file."""
    bits = storage_bits(layer, weight_bits)
    size = 0
    for name, axes in weight_axes(layer).items():
        shape = tuple(weight(layer, name).shape)
        size += -(-math.prod(shape) * bits // 8)
        num_scales = math.prod(shape[axis] for axis in axes)
        if bits != FLOAT_BITS:
            # A float32 scale per channel, and an int32 bias: folding a batch
            # normalization gives every kernel one. A lookup has none.
            size += num_scales * (4 if _is_lookup(layer) else 8)
        elif getattr(layer, "use_bias", False):
            size += 4 * num_scales
    return size


def _is_lookup(layer):
    return isinstance(layer, layers.Embedding)
