"""Layers with weights: dense, convolutions of all sorts, separable ones.

In LiteRT they are four kernels, all of them for images: what runs along a
sequence gets a second axis of length one, and what sums over several axes is
a dense kernel on reshaped tensors.
"""

import math

import numpy as np
from keras import layers
from keras import ops

from keras_saq.export.lowering.builder import window_options
from keras_saq.export.pending import Pending
from keras_saq.layers import Quantized
from keras_saq.layers import kinds
from keras_saq.layers.separable import is_separable
from keras_saq.layers.storage import PACKED_BITS
from keras_saq.layers.weights import weight
from keras_saq.layers.weights import weight_axes

_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D)
LAYERS = (
    layers.Dense,
    layers.EinsumDense,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *_TRANSPOSED,
    *_DEPTHWISE,
    *_CONVOLUTIONS,
)


def lower(builder, site, inputs):
    """A pending kernel for a layer with weights."""
    layer, (source,) = site.operation, inputs
    if not _has_codes(layer):
        source = builder.in_float(source, site.path)
    if is_separable(layer):
        return _separable(builder, site, layer, source)
    if isinstance(layer, layers.Dense):
        codes, scale, bits = _kernel(layer, "kernel")
        return _dense(
            builder,
            site,
            source,
            codes.T,
            scale,
            bits,
            _bias(layer, scale),
            activation=_activation(layer),
        )
    if isinstance(layer, layers.EinsumDense):
        return _einsum(builder, site, layer, source)
    image = _as_image(builder, layer, source, site.path)
    codes, scale, bits = _kernel(layer, "kernel")
    window = _window(layer)
    if isinstance(layer, _TRANSPOSED):
        kind, codes = "transpose_conv", _as_2d(codes).transpose(2, 0, 1, 3)
    elif isinstance(layer, _DEPTHWISE):
        kind, codes = "depthwise", _as_2d(codes)
        codes = codes.reshape(1, *codes.shape[:2], -1)
        window["depth_multiplier"] = layer.depth_multiplier
    elif _is_pointwise(layer):
        return _dense(
            builder,
            site,
            image,
            codes.reshape(codes.shape[-2:]).T,
            scale,
            bits,
            _bias(layer, scale),
            activation=_activation(layer),
        )
    else:
        kind, codes = "conv", _as_2d(codes).transpose(3, 0, 1, 2)
    return _pending(
        kind,
        image,
        _shape(site),
        site.path,
        codes,
        3 if kind == "depthwise" else 0,
        8,
        scale,
        _bias(layer, scale),
        activation=_activation(layer),
        options=window,
        made=_image_shape(layer, _shape(site)),
    )


def _shape(site):
    return tuple(site.outputs[0].shape[1:])


def _has_codes(layer):
    """Whether all of its kernels are quantized."""
    names = layer.weight_names if isinstance(layer, Quantized) else ()
    return set(weight_axes(layer)) <= set(names)


def _kernel(layer, name):
    """Codes, scales and bits of a weight; of a float one, itself."""
    variable = weight(layer, name)
    if _has_codes(layer):
        quantizer = layer.weight_quantizer(name)
        scale = ops.convert_to_numpy(quantizer.scale).reshape(-1)
        return quantizer.codes(variable), scale, quantizer.code_bits
    values = ops.convert_to_numpy(variable).astype(np.float32)
    return values, None, 32


def _bias(layer, scale):
    if not layer.use_bias:
        return None
    return ops.convert_to_numpy(layer.bias).astype(np.float32)


def _activation(layer):
    """What the kernel does itself; another function comes behind it."""
    activation = kinds.activation_of(layer)
    return "linear" if activation == "other" else activation


def _pending(
    kind, source, shape, path, codes, axis, bits, scale, bias, **kwargs
):
    channels = codes.shape[axis]
    if scale is None:
        scale = np.ones(channels, np.float32)
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


def _dense(builder, site, source, codes, scale, bits, bias, **kwargs):
    """A fully connected kernel, which reads packed codes."""
    return _pending(
        "fully_connected",
        source,
        kwargs.pop("shape", _shape(site)),
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


# --- Convolutions


def _window(layer):
    pad = "same" if layer.padding == "same" else "valid"
    return window_options(_pair(layer.strides), pad, _pair(layer.dilation_rate))


def _pair(values):
    return (1, *values) if len(values) == 1 else tuple(values)


def _as_2d(kernel):
    """A kernel for sequences as one for images of height one."""
    return kernel[None] if kernel.ndim == 3 else kernel


def _as_image(builder, layer, source, path):
    """The input with two axes to convolve over, padded if causal."""
    if len(source.shape) == 3:
        return source
    length, channels = source.shape
    image = builder.reshape(source, (1, length, channels), path)
    if layer.padding != "causal":
        return image
    before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    options = {"padding": ((0, 0), (before, 0))}
    shape = (1, length + before, channels)
    return builder.move("pad", image, shape, path, options)


def _image_shape(layer, shape):
    return (1, *shape) if len(shape) == 2 else shape


def _is_pointwise(layer):
    return (
        isinstance(layer, _CONVOLUTIONS)
        and math.prod(layer.kernel_size) == 1
        and math.prod(layer.strides) == 1
        and layer.groups == 1
    )


def _separable(builder, site, layer, source):
    """A depthwise kernel, the quantizer between, and a pointwise one."""
    image = _as_image(builder, layer, source, site.path)
    codes, scale, _ = _kernel(layer, "depthwise_kernel")
    codes = _as_2d(codes)
    window = _window(layer)
    window["depth_multiplier"] = layer.depth_multiplier
    codes = codes.reshape(1, *codes.shape[:2], -1)
    made = _image_shape(layer, (*_shape(site)[:-1], codes.shape[-1]))
    path = f"{site.path}/depthwise"
    image = _pending(
        "depthwise",
        image,
        made,
        path,
        codes,
        3,
        8,
        scale,
        None,
        options=window,
    )
    if getattr(layer, "inner_quantizer", None) is not None:
        image = builder.on_grid(image, layer.inner_quantizer, path)
    else:
        image = builder.in_float(image, path)
    codes, scale, bits = _kernel(layer, "pointwise_kernel")
    return _dense(
        builder,
        site,
        image,
        codes.reshape(codes.shape[-2:]).T,
        scale,
        bits,
        _bias(layer, scale),
        activation=_activation(layer),
    )


# --- EinsumDense


def einsum_letters(equation, rank):
    """Letters of input, kernel and output, `...` written out.

    >>> from keras_saq.export.lowering.weighted import einsum_letters
    >>> einsum_letters("...x,xy->...y", 3)
    ('ABx', 'xy', 'ABy')
    """
    operands, output = equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    letters = "ABCDEFGH"[: rank - len(source.replace("...", ""))]
    return (
        source.replace("...", letters),
        kernel,
        output.replace("...", letters),
    )


def einsum_obstacle(layer, rank):
    """Why an EinsumDense is no dense kernel, or `None`."""
    source, kernel, output = einsum_letters(layer.equation, rank)
    if source[0] != output[0]:
        return f"its equation {layer.equation!r} moves the batch axis"
    if any(letter in source and letter in output for letter in kernel):
        return f"its equation {layer.equation!r} has a kernel per element"
    if any(letter not in kernel + output for letter in source):
        return f"its equation {layer.equation!r} sums over its input"
    if kinds.activation_of(layer) == "other" and output != _natural(
        source, kernel, output
    ):
        return "its activation comes between kernel and transposition"
    return None


def _natural(source, kernel, output):
    """Order of axes in which the dense kernel makes its output."""
    kept = "".join(c for c in source if c not in kernel)
    return kept + "".join(c for c in kernel if c in output)


def _einsum(builder, site, layer, source):
    rank = len(source.shape) + 1
    letters, kernel, output = einsum_letters(layer.equation, rank)
    kept = [c for c in letters if c not in kernel]
    summed = [c for c in kernel if c in letters]
    made = [c for c in kernel if c in output]
    codes, scale, bits = _kernel(layer, "kernel")
    sizes = dict(zip(letters[1:], source.shape))
    sizes |= dict(zip(kernel, codes.shape))
    order = [letters.index(c) for c in [*kept, *summed]]
    source = builder.transpose(source, order, site.path)
    lead = [sizes[c] for c in kept[1:]]
    depth = math.prod(sizes[c] for c in summed)
    source = builder.reshape(source, (*lead, depth), site.path)
    codes = codes.transpose([kernel.index(c) for c in [*made, *summed]])
    codes = codes.reshape(-1, depth)
    natural = _natural(letters, kernel, output)

    def moves(builder, tensor):
        shape = [*lead, *(sizes[c] for c in made)]
        tensor = builder.reshape(tensor, shape, site.path)
        axes = [natural.index(c) for c in output]
        return builder.transpose(tensor, axes, site.path)

    return _dense(
        builder,
        site,
        source,
        codes,
        scale,
        bits,
        _einsum_bias(layer, output, made, sizes),
        activation=_activation(layer),
        shape=tuple(sizes[c] for c in output[1:]),
        moves=moves,
    )


def _einsum_bias(layer, output, made, sizes):
    """The bias along the axes that the kernel makes, in its order."""
    if layer.bias is None:
        return None
    bias = ops.convert_to_numpy(layer.bias).astype(np.float32)
    # Its axes are the last ones of the output, of length 1 where shared.
    own = output[len(output) - bias.ndim :]
    index = [own.index(c) for c in made if c in own]
    others = [i for i in range(bias.ndim) if i not in index]
    bias = bias.transpose([*others, *index])[(0,) * len(others)]
    missing = [i for i, c in enumerate(made) if c not in own]
    bias = np.expand_dims(bias, missing)
    return np.broadcast_to(bias, [sizes[c] for c in made]).copy()
