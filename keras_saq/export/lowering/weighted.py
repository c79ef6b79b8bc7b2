"""Layers with weights: dense, convolutions of all sorts, separable ones.

In LiteRT they are four kernels, all of them for images: what runs along a
sequence gets a second axis of length one, and what sums over several axes is
a dense kernel on reshaped tensors.
"""

import numpy as np

from keras_saq.export.lowering import einsum
from keras_saq.export.lowering.builder import window_options
from keras_saq.export.lowering.dense import bias_of
from keras_saq.export.lowering.dense import dense_of
from keras_saq.export.lowering.dense import fused_activation
from keras_saq.export.lowering.dense import has_codes
from keras_saq.export.lowering.dense import kernel_of
from keras_saq.export.lowering.dense import output_shape
from keras_saq.export.lowering.dense import pending_of
from keras_saq.layers import roles


def lower(builder, site, inputs):
    """A pending kernel for a layer with weights."""
    layer, (source,) = site.operation, inputs
    if not has_codes(layer):
        source = builder.in_float(source, site.path)
    family = roles.family(layer)
    if family == "separable":
        return _separable(builder, site, layer, source)
    if family == "dense":
        return _pointwise(builder, site, source, "kernel")
    if family == "einsum_dense":
        return einsum.lower(builder, site, source)
    image = _as_image(builder, layer, source, site.path)
    if family == "conv" and roles.is_pointwise(layer):
        return _pointwise(builder, site, image, "kernel")
    codes, scale, _ = kernel_of(layer, "kernel")
    window = _window(layer)
    if family == "transposed":
        kind, codes = "transpose_conv", _as_2d(codes).transpose(2, 0, 1, 3)
        codes = _at_least(codes, window["strides"])
    elif family == "depthwise":
        kind, codes = "depthwise", _as_2d(codes)
        codes = codes.reshape(1, *codes.shape[:2], -1)
        window["depth_multiplier"] = layer.depth_multiplier
    else:
        kind, codes = "conv", _as_2d(codes).transpose(3, 0, 1, 2)
    return pending_of(
        kind,
        image,
        output_shape(site),
        site.path,
        codes,
        3 if kind == "depthwise" else 0,
        8,
        scale,
        bias_of(layer),
        activation=fused_activation(layer),
        options=window,
        made=_image_shape(layer, output_shape(site)),
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
    made = None if length is None else length + before
    shape = (1, made, channels)
    return builder.move("pad", image, shape, path, options)


def _at_least(codes, strides):
    """A transposed kernel with zeros where its stride leaves gaps.

    XNNPACK takes none that is smaller than its stride.
    """
    missing = [
        (0, max(stride - size, 0))
        for size, stride in zip(codes.shape[1:3], strides)
    ]
    return np.pad(codes, [(0, 0), *missing, (0, 0)])


def _image_shape(layer, shape):
    return (1, *shape) if len(shape) == 2 else shape


def _separable(builder, site, layer, source):
    """A depthwise kernel, the quantizer between, and a pointwise one."""
    image = _as_image(builder, layer, source, site.path)
    codes, scale, _ = kernel_of(layer, "depthwise_kernel")
    codes = _as_2d(codes)
    window = _window(layer)
    window["depth_multiplier"] = layer.depth_multiplier
    codes = codes.reshape(1, *codes.shape[:2], -1)
    made = _image_shape(layer, (*output_shape(site)[:-1], codes.shape[-1]))
    path = f"{site.path}/depthwise"
    image = pending_of(
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
    return _pointwise(builder, site, image, "pointwise_kernel")


def _pointwise(builder, site, image, name):
    """Dense, or a 1x1 convolution: a dense kernel on each pixel."""
    layer = site.operation
    codes, scale, bits = kernel_of(layer, name)
    return dense_of(
        builder,
        site,
        image,
        codes.reshape(codes.shape[-2:]).T,
        scale,
        bits,
        bias_of(layer),
        activation=fused_activation(layer),
    )
