"""How a LiteRT file stores the weights of a layer."""

import math

from keras import layers

FLOAT_BITS = 32


def is_packable(layer):
    """Whether LiteRT has an exact kernel that reads packed 4- or 2-bit codes.

    That is FULLY_CONNECTED: Dense, and 1x1 convolutions written as one.
    """
    if isinstance(layer, layers.Dense):
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
    num_weights = math.prod(layer.kernel.shape)
    num_channels = layer.kernel.shape[-1]
    if isinstance(layer, layers.DepthwiseConv2D):
        num_channels *= layer.kernel.shape[-2]
    size = -(-num_weights * bits // 8)
    if bits == FLOAT_BITS:
        return size + (4 * num_channels if layer.use_bias else 0)
    # A float32 scale and an int32 bias per channel: folding a batch
    # normalization gives every layer a bias.
    return size + 8 * num_channels
