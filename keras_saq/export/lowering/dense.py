"""The dense kernel, and what all kernels with weights take from a layer."""

import numpy as np
from keras import ops

from keras_saq.export.pending import Pending
from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.roles import weight
from keras_saq.layers.roles import weight_axes
from keras_saq.layers.storage import PACKED_BITS


def output_shape(site):
    """Without the batch axis."""
    return tuple(site.outputs[0].shape[1:])


def has_codes(layer):
    """Whether all of its kernels are quantized."""
    names = layer.weight_names if isinstance(layer, Quantized) else ()
    return set(weight_axes(layer)) <= set(names)


def kernel_of(layer, name):
    """Codes, scales and bits of a weight; of a float one, itself."""
    variable = weight(layer, name)
    if has_codes(layer):
        quantizer = layer.weight_quantizer(name)
        scale = ops.convert_to_numpy(quantizer.scale).reshape(-1)
        return quantizer.codes(variable), scale, quantizer.code_bits
    values = ops.convert_to_numpy(variable).astype(np.float32)
    return values, None, 32


def bias_of(layer):
    """The layer's bias, `None` without one."""
    if not layer.use_bias:
        return None
    return ops.convert_to_numpy(layer.bias).astype(np.float32)


def fused_activation(layer):
    """What the kernel does itself; another function comes behind it."""
    activation = roles.activation_of(layer)
    return "linear" if activation == "other" else activation


def pending_of(
    kind, source, shape, path, codes, axis, bits, scale, bias, **kwargs
):
    """A pending kernel with weights; a scale of `None` means one."""
    channels = codes.shape[axis]
    # Of one scale, and of none, each channel has the same.
    scale = 1.0 if scale is None else scale
    scale = np.broadcast_to(np.asarray(scale, np.float32), (channels,))
    bias = np.zeros(channels, np.float32) if bias is None else bias.reshape(-1)
    pending = Pending(
        kind=kind,
        inputs=[source],
        shape=shape,
        path=path,
        codes=codes,
        axis=axis,
        num_bits=bits,
        weight_scale=scale,
        bias=bias,
        offset=bias,
        slope=np.ones_like(scale),
        **kwargs,
    )
    pending.bias_in_steps = bias / pending.step
    if source.is_float:
        quantized = np.issubdtype(codes.dtype, np.integer)
        pending.what = (
            "a kernel with quantized weights" if quantized else "a float layer"
        )
    return pending


def dense_of(builder, site, source, codes, scale, bits, bias, **kwargs):
    """A fully connected kernel, which reads packed codes."""
    return pending_of(
        "fully_connected",
        source,
        kwargs.pop("shape", output_shape(site)),
        site.path,
        codes,
        0,
        packed_bits(builder, bits, codes.shape[1]),
        scale,
        bias,
        made=kwargs.pop("made", (*source.shape[:-1], len(codes))),
        **kwargs,
    )


def packed_bits(builder, code_bits, depth):
    """Bits that a code takes where the kernel reads packed ones.

    XNNPACK's kernels want rows of whole bytes.
    """
    if builder.storage == "int8" or code_bits > 8:
        return 8
    return next(
        bits
        for bits in PACKED_BITS
        if code_bits <= bits and depth * bits % 8 == 0
    )
