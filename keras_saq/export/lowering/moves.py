"""Layers that move, repeat or leave out elements: they keep the grid."""

import numpy as np
from keras import layers

from keras_saq.export.pending import Pending
from keras_saq.layers import kinds

PASSED = (
    layers.ActivityRegularization,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
)
PASSED_OPERATIONS = ("Cast", "Identity", "StopGradient")
RESHAPES = (layers.Flatten, layers.Reshape)
RESHAPE_OPERATIONS = ("Reshape", "Squeeze", "ExpandDims")
PADS = (layers.ZeroPadding1D, layers.ZeroPadding2D)
CROPS = (layers.Cropping1D, layers.Cropping2D)
UPSAMPLINGS = (layers.UpSampling1D, layers.UpSampling2D)
# XNNPACK joins at most five tensors at once.
_LARGEST_JOIN = 5


def shape_of(site):
    return tuple(site.outputs[0].shape[1:])


def lower_passed(builder, site, inputs):
    return inputs[0]


def lower_reshape(builder, site, inputs):
    (source,) = inputs
    return builder.reshape(source, shape_of(site), site.path)


def lower_permute(builder, site, inputs):
    (source,) = inputs
    axes = getattr(site.operation, "dims", None)
    if axes is not None:
        axes = (0, *axes)
    else:
        axes = site.operation.axes or range(len(source.shape) + 1)[::-1]
    rank = len(source.shape) + 1
    return builder.transpose(source, [a % rank for a in axes], site.path)


def permute_obstacle(site):
    axes = getattr(site.operation, "axes", None)
    if kinds.operation_name(site.operation) == "Transpose":
        rank = len(site.inputs[0].shape)
        if axes is None or axes[0] % rank != 0:
            return "it moves the batch axis"
    return None


def lower_pad(builder, site, inputs):
    (source,) = inputs
    padding = site.operation.padding
    if isinstance(site.operation, layers.ZeroPadding1D):
        padding = (padding,)
    options = {"padding": tuple(tuple(pair) for pair in padding)}
    return builder.move("pad", source, shape_of(site), site.path, options)


def lower_crop(builder, site, inputs):
    (source,) = inputs
    cropping = site.operation.cropping
    if isinstance(site.operation, layers.Cropping1D):
        cropping = (cropping,)
    options = {"begin": (*(before for before, _ in cropping), 0)}
    return builder.move("slice", source, shape_of(site), site.path, options)


def lower_upsampling(builder, site, inputs):
    """Nearest: a tensor beside itself, along the rows, then the columns.

    Each RESHAPE and CONCATENATION is delegated, which
    RESIZE_NEAREST_NEIGHBOR on integers is not.
    """
    (source,) = inputs
    size = np.broadcast_to(site.operation.size, len(source.shape) - 1)
    for axis in reversed(range(len(size))):
        source = _repeated(builder, source, axis, int(size[axis]), site.path)
    return source


def _repeated(builder, source, axis, times, path):
    """Each index of an axis, several times in a row."""
    if times == 1:
        return source
    outer, inner = source.shape[: axis + 1], source.shape[axis + 1 :]
    flat = builder.reshape(source, (*outer, int(np.prod(inner))), path)
    joined = join(builder, [flat] * times, len(flat.shape), path)
    shape = (*outer[:-1], outer[-1] * times, *inner)
    return builder.reshape(joined, shape, path)


def join(builder, parts, axis, path):
    """Tensors of one grid beside each other, along an axis (batch is 0)."""
    while len(parts) > 1:
        parts = [
            _joined(builder, parts[i : i + _LARGEST_JOIN], axis, path)
            for i in range(0, len(parts), _LARGEST_JOIN)
        ]
    return parts[0]


def _joined(builder, parts, axis, path):
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis - 1] = sum(part.shape[axis - 1] for part in parts)
    output = builder.like(parts[0], path, shape)
    output.is_unsigned = all(part.is_unsigned for part in parts)
    return builder.emit("concatenate", parts, output, path, {"axis": axis})


def lower_concatenate(builder, site, inputs):
    """Parts on the grid of the layer's output, or of floats."""
    layer, path = site.operation, site.path
    axis = getattr(layer, "operation", layer).axis
    axis %= len(site.outputs[0].shape)
    quantizer = getattr(layer, "output_quantizer", None)
    if quantizer is None:
        grids = {
            (t.scale, t.zero_point)
            for t in inputs
            if not isinstance(t, Pending) and not t.is_float
        }
        if len(grids) != 1 or any(isinstance(t, Pending) for t in inputs):
            inputs = [builder.in_float(t, path) for t in inputs]
        return join(builder, inputs, axis, path)
    parts = [
        builder.on_grid(t, quantizer, f"{path}/{i}")
        for i, t in enumerate(inputs)
    ]
    return join(builder, parts, axis, path)
