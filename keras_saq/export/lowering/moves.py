"""Layers that move, repeat or leave out elements: they keep the grid."""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.export.pending import Pending
from keras_saq.layers import roles

# XNNPACK joins at most five tensors at once.
_LARGEST_JOIN = 5
# Each element at a border is a slice of its own.
_LARGEST_MIRROR = 8


def shape_of(site):
    return tuple(site.outputs[0].shape[1:])


def lower_passed(builder, site, inputs):
    return inputs[0]


def lower_reshape(builder, site, inputs):
    (source,) = inputs
    return builder.reshape(source, shape_of(site), site.path)


def lower_permute(builder, site, inputs):
    (source,) = inputs
    axes = _permuted(site) or range(len(source.shape) + 1)[::-1]
    rank = len(source.shape) + 1
    return builder.transpose(source, [a % rank for a in axes], site.path)


def permute_obstacle(site):
    axes = _permuted(site)
    if axes is None or axes[0] % len(site.inputs[0].shape) != 0:
        return "it moves the batch axis"
    return None


def _permuted(site):
    """Order of axes, with the batch; `None` where all are reversed."""
    operation = roles.unwrap(site.operation)
    if isinstance(operation, keras.layers.Layer):
        return (0, *operation.dims)
    return operation.axes


def pad_obstacle(site):
    operation = roles.unwrap(site.operation)
    if isinstance(operation, keras.layers.Layer):
        return None
    if len(operation.pad_width) == 1 or any(operation.pad_width[0]):
        return "it pads the batch axis"
    if operation.mode in ("reflect", "symmetric"):
        largest = max(map(max, operation.pad_width))
        if largest > _LARGEST_MIRROR:
            return f"it mirrors more than {_LARGEST_MIRROR} elements"
        if any(None in value.shape[1:] for value in site.inputs):
            return "it mirrors open sizes; `input_shape` can fix them"
        return None
    if operation.mode != "constant" or _padding_value(site) not in (
        0.0,
        -np.inf,
    ):
        return "it pads with other values than zero"
    return None


def _padding_value(site):
    values = [*site.call.args[1:], *site.call.kwargs.values()]
    return float((values or [None])[-1] or 0.0)


def lower_pad(builder, site, inputs):
    """Zeros around a tensor.

    Before a maximum people pad with minus infinity; zeros do the same where
    no element is negative.
    """
    (source,) = inputs
    operation = roles.unwrap(site.operation)
    is_layer = isinstance(operation, keras.layers.Layer)
    if not is_layer and operation.mode != "constant":
        return _mirrored(builder, site, source, operation)
    if not is_layer and _padding_value(site) < 0:
        if source.is_float or not source.is_unsigned:
            raise ValueError(
                f"'{site.path}' pads numbers of both signs with minus "
                "infinity, which has no code. Pad in the MaxPooling2D layer "
                "instead, with padding='same'."
            )
    if is_layer:
        padding = _pairs(operation.padding)
    else:
        padding = operation.pad_width[1:]
    options = {"padding": tuple(tuple(pair) for pair in padding)}
    return builder.move("pad", source, shape_of(site), site.path, options)


def _mirrored(builder, site, source, operation):
    """The elements at the border, in the other order, on its other side."""
    skipped = 1 if operation.mode == "reflect" else 0
    for axis, (before, after) in enumerate(operation.pad_width[1:]):
        size = source.shape[axis]
        first = range(skipped + before - 1, skipped - 1, -1)
        last = range(size - 1 - skipped, size - 1 - skipped - after, -1)
        parts = [
            *indices(builder, source, axis, first, site.path),
            source,
            *indices(builder, source, axis, last, site.path),
        ]
        source = join(builder, parts, axis + 1, site.path)
    return source


def _pairs(sizes):
    """A pair before and behind per axis; of a layer for sequences, one."""
    return (sizes,) if isinstance(sizes[0], int) else sizes


def lower_crop(builder, site, inputs):
    (source,) = inputs
    cropping = _pairs(site.operation.cropping)
    options = {"begin": (*(before for before, _ in cropping), 0)}
    return builder.move("slice", source, shape_of(site), site.path, options)


def item_obstacle(site):
    keys = _keys(site)
    if keys is None or keys[0] != slice(None):
        return "only slices along the axes of a sample have a kernel here"
    return None


def _keys(site):
    """The key of `x[key]`, one entry per axis; `None` if it is another."""
    arguments = [*site.call.args[1:], *site.call.kwargs.values()]
    key = arguments[-1] if arguments else None
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    rank = len(site.inputs[0].shape)
    if Ellipsis in key:
        place = key.index(Ellipsis)
        key[place : place + 1] = [slice(None)] * (rank - len(key) + 1)
    key += [slice(None)] * (rank - len(key))
    for entry in key:
        forward = isinstance(entry, slice) and (entry.step or 1) > 0
        if not (forward or isinstance(entry, int)):
            return None
    return key


def lower_item(builder, site, inputs):
    """`x[:, a:b:k, c]`: a slice, and a reshape where an axis goes."""
    (source,) = inputs
    begin, shape, steps = [], [], []
    for size, entry in zip(source.shape, _keys(site)[1:]):
        if isinstance(entry, int):
            entry = slice(entry % size, entry % size + 1)
        first, end, step = entry.indices(size)
        begin.append(first)
        shape.append(end - first)
        steps.append(step)
    if tuple(shape) != source.shape:
        options = {"begin": tuple(begin)}
        source = builder.move("slice", source, shape, site.path, options)
    for axis, step in enumerate(steps):
        source = _every(builder, source, axis, step, site.path)
    return builder.reshape(source, shape_of(site), site.path)


def _every(builder, source, axis, step, path):
    """The first, and from there every `step`-th index of an axis.

    The first column of rows of `step`: the delegate has no strided slice.
    """
    if step == 1:
        return source
    before, size = source.shape[:axis], source.shape[axis]
    after = source.shape[axis + 1 :]
    rows = -(-size // step)
    if rows * step != size:
        padding = [(0, 0)] * len(source.shape)
        padding[axis] = (0, rows * step - size)
        options = {"padding": tuple(padding)}
        shape = (*before, rows * step, *after)
        source = builder.move("pad", source, shape, path, options)
    source = builder.reshape(source, (*before, rows, step, *after), path)
    shape = (*before, rows, 1, *after)
    options = {"begin": (0,) * len(shape)}
    source = builder.move("slice", source, shape, path, options)
    return builder.reshape(source, (*before, rows, *after), path)


def flip_obstacle(site):
    if 0 in _flipped(site):
        return "it reverses the batch axis"
    return None


def _flipped(site):
    operation = roles.unwrap(site.operation)
    rank = len(site.inputs[0].shape)
    axis = range(rank) if operation.axis is None else operation.axis
    axis = [axis] if isinstance(axis, int) else axis
    return [a % rank for a in axis]


def lower_flip(builder, site, inputs):
    """Slices, joined in the other order; the steps of a Bidirectional."""
    (source,) = inputs
    for axis in _flipped(site):
        size = source.shape[axis - 1]
        order = range(size - 1, -1, -1)
        parts = indices(builder, source, axis - 1, order, site.path)
        source = join(builder, parts, axis, site.path)
    return source


def indices(builder, source, axis, order, path):
    """Slices of length one: the indices of an axis, in some order."""
    shape = list(source.shape)
    shape[axis] = 1
    parts = []
    for i in order:
        begin = [0] * len(shape)
        begin[axis] = i
        options = {"begin": tuple(begin)}
        parts.append(builder.move("slice", source, shape, path, options))
    return parts


def lower_upsampling(builder, site, inputs):
    """Nearest: a tensor beside itself, along the rows, then the columns.

    Each RESHAPE and CONCATENATION is delegated, which
    RESIZE_NEAREST_NEIGHBOR on integers is not.
    """
    (source,) = inputs
    size = np.broadcast_to(site.operation.size, len(source.shape) - 1)
    for axis in reversed(range(len(size))):
        source = repeated(builder, source, axis, int(size[axis]), site.path)
    return source


def repeated(builder, source, axis, times, path):
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


def _arguments(site):
    """Tensors and constants that are joined."""
    return tree.flatten(site.call.args[0])


def concatenate_obstacle(site):
    if len(site.inputs) < len(_arguments(site)) and len(site.inputs) > 1:
        return "it joins several tensors and constants"
    return None


def _beside_constants(builder, site, source, axis):
    """A tensor beside constants, such as the class token of a transformer.

    In float, and exactly: the tensor between zeros, plus the constants.
    """
    path, before, after, constants = site.path, 0, 0, []
    is_behind = False
    for argument in _arguments(site):
        if isinstance(argument, keras.KerasTensor):
            is_behind = True
            constants.append(np.zeros((1, *source.shape), np.float32))
            continue
        value = ops.convert_to_numpy(argument).astype(np.float32)
        constants.append(value[:1])
        if is_behind:
            after += value.shape[axis]
        else:
            before += value.shape[axis]
    constants = np.concatenate(constants, axis)[0]

    def build(builder, inputs):
        x = builder.in_float(inputs[0], path)
        padding = [(0, 0)] * (axis - 1) + [(before, after)]
        x = builder.move(
            "pad", x, constants.shape, path, {"padding": tuple(padding)}
        )
        constant = builder.constant(f"{path}/constants", constants)
        return builder.compute("add", [x, constant], path)

    return Pending(
        "float",
        [builder.plain(source, path)],
        constants.shape,
        path,
        build=build,
        what="'concatenate' with constants",
    )


def lower_concatenate(builder, site, inputs):
    """Parts on the grid of the layer's output, or of floats."""
    layer, path = site.operation, site.path
    axis = roles.unwrap(layer).axis
    axis %= len(site.outputs[0].shape)
    if len(site.inputs) < len(_arguments(site)):
        return _beside_constants(builder, site, inputs[0], axis)
    quantizer = getattr(layer, "output_quantizer", None)
    if quantizer is None:
        grids = {
            None
            if isinstance(t, Pending) or t.is_float
            else (t.scale, t.zero_point)
            for t in inputs
        }
        if len(grids) != 1 or None in grids:
            inputs = [builder.in_float(t, path) for t in inputs]
        return join(builder, inputs, axis, path)
    parts = [
        builder.on_grid(t, quantizer, f"{path}/{i}")
        for i, t in enumerate(inputs)
    ]
    return join(builder, parts, axis, path)
