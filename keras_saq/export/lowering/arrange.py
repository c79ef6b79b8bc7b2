"""Operations that split, repeat and turn a tensor: slices that are joined.

None of them has a kernel of its own here. What LiteRT's SPLIT, TILE,
REVERSE_V2 and MIRROR_PAD do, slices, reshapes and concatenations do as well,
and those are delegated on integers.
"""

import keras
import numpy as np

from keras_saq.export.lowering.moves import join
from keras_saq.export.lowering.moves import repeated
from keras_saq.export.lowering.moves import shape_of
from keras_saq.layers import roles

# Each is an operator of the file.
_MOST_PARTS = 32


def _operation(site):
    return roles.unwrap(site.operation)


def _axis(site, axis, rank=None):
    """An axis as an index into a sample's shape; -1 is the batch."""
    rank = len(site.inputs[0].shape) if rank is None else rank
    return axis % rank - 1


def part(builder, source, axis, begin, end, path):
    """Some indices of an axis of a sample.

    Args:
        builder: a `Builder`.
        source: a `Tensor`.
        axis: index into its shape, without the batch.
        begin: the first index.
        end: the one behind the last.
        path: of the site.
    """
    if (begin, end) == (0, source.shape[axis]):
        return source
    shape = list(source.shape)
    shape[axis] = end - begin
    first = [0] * len(shape)
    first[axis] = begin
    options = {"begin": tuple(first)}
    return builder.move("slice", source, shape, path, options)


def _ends(site):
    """Where the parts of a `split` end."""
    operation = _operation(site)
    axis = _axis(site, operation.axis)
    size = site.inputs[0].shape[axis + 1]
    sections = operation.indices_or_sections
    if isinstance(sections, int):
        step = size // sections
        return [step * (i + 1) for i in range(sections)]
    return [*map(int, sections), size]


def split_obstacle(site):
    if _axis(site, _operation(site).axis) < 0:
        return "it splits the batch axis"
    if len(site.outputs) > _MOST_PARTS:
        return f"it makes more than {_MOST_PARTS} parts"
    return None


def lower_split(builder, site, inputs):
    (source,) = inputs
    axis = _axis(site, _operation(site).axis)
    ends = _ends(site)
    return [
        part(builder, source, axis, begin, end, f"{site.path}/{i}")
        for i, (begin, end) in enumerate(zip([0, *ends], ends))
    ]


def lower_unstack(builder, site, inputs):
    (source,) = inputs
    axis = _axis(site, _operation(site).axis)
    made = []
    for i in range(source.shape[axis]):
        path = f"{site.path}/{i}"
        each = part(builder, source, axis, i, i + 1, path)
        shape = tuple(site.outputs[0].shape[1:])
        made.append(builder.reshape(each, shape, path))
    return made


def _times(site):
    """How often a `tile` repeats each axis of the output, batch included."""
    repeats = _operation(site).repeats
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = len(site.outputs[0].shape)
    return [1] * (rank - len(repeats)) + [int(r) for r in repeats]


def tile_obstacle(site):
    times = _times(site)
    if len(site.inputs[0].shape) < len(times) or times[0] != 1:
        return "it repeats the batch axis"
    if max(times) > _MOST_PARTS:
        return f"it repeats more than {_MOST_PARTS} times"
    return None


def lower_tile(builder, site, inputs):
    (source,) = inputs
    for axis, times in enumerate(_times(site)[1:], start=1):
        source = join(builder, [source] * times, axis, site.path)
    return source


def repeat_obstacle(site):
    operation = _operation(site)
    repeats = np.unique(np.ravel(operation.repeats))
    if operation.axis is None or _axis(site, operation.axis) < 0:
        return "it repeats the batch axis"
    if len(repeats) != 1 or repeats[0] > _MOST_PARTS:
        return f"it repeats unlike or more than {_MOST_PARTS} times"
    return None


def lower_repeat(builder, site, inputs):
    (source,) = inputs
    operation = _operation(site)
    times = int(np.ravel(operation.repeats)[0])
    axis = _axis(site, operation.axis)
    return repeated(builder, source, axis, times, site.path)


def lower_repeat_vector(builder, site, inputs):
    (source,) = inputs
    source = builder.reshape(source, (1, *source.shape), site.path)
    return join(builder, [source] * site.operation.n, 1, site.path)


def repeat_vector_obstacle(site):
    if site.operation.n > _MOST_PARTS:
        return f"it repeats more than {_MOST_PARTS} times"
    return None


def _turned(site):
    """Order of axes, batch included, of `swapaxes` and `moveaxis`."""
    operation = _operation(site)
    rank = len(site.inputs[0].shape)
    if isinstance(operation, keras.src.ops.numpy.Swapaxes):
        order = list(range(rank))
        a, b = operation.axis1 % rank, operation.axis2 % rank
        order[a], order[b] = b, a
        return order
    moved = dict(
        zip(
            (a % rank for a in operation.destination),
            (a % rank for a in operation.source),
        )
    )
    rest = iter(a for a in range(rank) if a not in moved.values())
    return [moved[a] if a in moved else next(rest) for a in range(rank)]


def turn_obstacle(site):
    return "it moves the batch axis" if _turned(site)[0] else None


def lower_turn(builder, site, inputs):
    (source,) = inputs
    return builder.transpose(source, _turned(site), site.path)


def _shifts(site):
    """Pairs of an axis and by how much a `roll` moves it."""
    operation = _operation(site)
    axes = np.ravel(operation.axis)
    shifts = np.broadcast_to(np.ravel(operation.shift), axes.shape)
    return [(_axis(site, int(a)), int(s)) for a, s in zip(axes, shifts)]


def roll_obstacle(site):
    if _operation(site).axis is None or any(a < 0 for a, _ in _shifts(site)):
        return "it rolls the batch axis"
    return None


def lower_roll(builder, site, inputs):
    (source,) = inputs
    for axis, shift in _shifts(site):
        size = source.shape[axis]
        place = -shift % size
        if place:
            parts = [
                part(builder, source, axis, place, size, site.path),
                part(builder, source, axis, 0, place, site.path),
            ]
            source = join(builder, parts, axis + 1, site.path)
    return source


def lower_stack(builder, site, inputs):
    """Parts with one more axis, beside each other."""
    axis = _axis(site, _operation(site).axis, len(site.outputs[0].shape))
    quantizer = getattr(site.operation, "output_quantizer", None)
    shape = list(shape_of(site))
    shape[axis] = 1
    parts = []
    for i, value in enumerate(inputs):
        path = f"{site.path}/{i}"
        if quantizer is None:
            value = builder.in_float(value, site.path)
        else:
            value = builder.on_grid(value, quantizer, path)
        parts.append(builder.reshape(value, shape, path))
    return join(builder, parts, axis + 1, site.path)


def stack_obstacle(site):
    rank = len(site.outputs[0].shape)
    if _axis(site, _operation(site).axis, rank) < 0:
        return "it stacks in front of the batch axis"
    arguments = site.call.args[0]
    if len(site.inputs) < len(arguments):
        return "it stacks constants, too"
    return None
