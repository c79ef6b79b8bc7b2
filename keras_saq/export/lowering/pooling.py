"""Averages and maxima, over images and over sequences."""

import math

import numpy as np

from keras_saq.export.accumulator import check_reach
from keras_saq.export.accumulator import largest_code
from keras_saq.export.lowering.builder import window_options
from keras_saq.export.pending import Pending
from keras_saq.layers import roles


def _reaches_beyond(layer, shape):
    """Whether some window has elements beyond the border, which count not."""
    if layer.padding == "valid":
        return False
    sizes = zip(shape, layer.pool_size, layer.strides)
    if None in shape:
        return True
    return any(size % n or n != stride for size, n, stride in sizes)


def lower_global_average(builder, site, inputs):
    (source,) = inputs
    axes = tuple(range(1, len(source.shape)))
    return _mean(source, axes, site.operation.keepdims, site)


def _mean(source, axes, keep_dims, site):
    """A MEAN, whose sums of codes fit."""
    sizes = [source.shape[axis - 1] for axis in axes]
    if not source.is_float and None not in sizes:
        count = math.prod(sizes)
        check_reach(
            count * largest_code(source),
            site.path,
            f"{count:,} codes per output",
            "Average in two steps",
        )
    return Pending(
        "mean",
        [source],
        _shape(site),
        site.path,
        options={"keep_dims": keep_dims, "axes": axes},
        what="an average" if source.is_float else "",
    )


def mean_obstacle(site):
    axes = _mean_axes(site)
    return "it averages over the batch" if 0 in axes else None


def _mean_axes(site):
    operation = roles.unwrap(site.operation)
    rank = len(site.inputs[0].shape)
    axes = range(rank) if operation.axis is None else operation.axis
    return tuple(sorted(axis % rank for axis in axes))


def lower_mean(builder, site, inputs):
    """`keras.ops.mean`, over any axes of a sample."""
    (source,) = inputs
    operation = roles.unwrap(site.operation)
    return _mean(source, _mean_axes(site), operation.keepdims, site)


def lower_average(builder, site, inputs):
    """A depthwise convolution with codes 1, which rounds as training does.

    AVERAGE_POOL_2D rounds halves away from zero in the shifted codes. Over
    the whole image it is a MEAN.
    """
    layer, path = site.operation, site.path
    (source,) = inputs
    if tuple(layer.pool_size) == source.shape[:-1]:
        return _mean(source, tuple(range(1, len(source.shape))), True, site)
    image, window, strides = _as_image(builder, layer, source, path)
    if _reaches_beyond(layer, source.shape):
        return _average_at_borders(site, image, window, strides)
    channels = source.shape[-1]
    zeros = np.zeros(channels, np.float32)
    return Pending(
        "depthwise",
        [image],
        _shape(site),
        path,
        codes=np.ones((1, *window, channels), np.int32),
        axis=3,
        weight_scale=np.full(channels, 1.0 / np.prod(window), np.float32),
        bias=zeros,
        bias_in_steps=zeros,
        slope=np.ones(channels, np.float32),
        options=window_options(strides),
        made=_image_shape(_shape(site)),
        what="an average" if source.is_float else "",
    )


def _average_at_borders(site, image, window, strides):
    """In float: fewer elements count at the border."""
    options = window_options(strides, "same") | {"window": window}
    made = _image_shape(_shape(site))

    def build(builder, inputs):
        x = builder.compute(
            "float_average_pool", inputs, site.path, made, options
        )
        return builder.reshape(x, _shape(site), site.path)

    return Pending(
        "float",
        [image],
        _shape(site),
        site.path,
        build=build,
        what="an average with fewer elements at the border",
    )


def lower_global_max(builder, site, inputs):
    (source,) = inputs
    image = source
    if len(source.shape) != 3:
        image = builder.reshape(source, _as_plane(source.shape), site.path)
    options = window_options() | {"window": image.shape[:2]}
    pooled = builder.move(
        "max_pool",
        image,
        (1, 1, image.shape[-1]),
        site.path,
        options,
    )
    return builder.reshape(pooled, _shape(site), site.path)


def _as_plane(shape):
    """A sequence as one row; a volume as a row of pixels for each frame."""
    if len(shape) == 2:
        return (1, *shape)
    return (shape[0], int(np.prod(shape[1:-1])), shape[-1])


def lower_max(builder, site, inputs):
    layer, (source,) = site.operation, inputs
    image, window, strides = _as_image(builder, layer, source, site.path)
    options = window_options(strides, layer.padding) | {"window": window}
    made = _image_shape(_shape(site))
    pooled = builder.move("max_pool", image, made, site.path, options)
    return builder.reshape(pooled, _shape(site), site.path)


def _shape(site):
    return tuple(site.outputs[0].shape[1:])


def _image_shape(shape):
    return (1, *shape) if len(shape) == 2 else shape


def _as_image(builder, layer, source, path):
    window, strides = tuple(layer.pool_size), tuple(layer.strides)
    if len(source.shape) == 3:
        return source, window, strides
    image = builder.reshape(source, (1, *source.shape), path)
    return image, (1, *window), (1, *strides)
