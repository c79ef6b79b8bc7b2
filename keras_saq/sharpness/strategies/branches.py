"""`keras.ops.cond` for lists of tensors and `None`."""

import keras
from keras import ops


def branch(condition, when_true, when_false):
    """One of two structures of tensors, by a scalar tensor.

    Args:
        condition: scalar boolean tensor.
        when_true: function that returns a structure of tensors and `None`.
        when_false: the same, of the same shapes. A `None` here stands for
            none; one in `when_true` for zeros.

    Returns:
        What one of the functions returned.
    """
    like = when_false()
    flat = keras.tree.flatten(like)
    present = [i for i, t in enumerate(flat) if t is not None]

    def first():
        made = keras.tree.flatten(when_true())
        return [
            ops.zeros_like(flat[i])
            if made[i] is None
            else ops.cast(made[i], flat[i].dtype)
            for i in present
        ]

    def second():
        return [flat[i] for i in present]

    for i, tensor in zip(present, ops.cond(condition, first, second)):
        flat[i] = tensor
    return keras.tree.pack_sequence_as(like, flat)


def norm(tensors):
    """Euclidean norm over a list of tensors and `None`."""
    squares = [
        ops.sum(ops.square(ops.cast(t, "float32")))
        for t in tensors
        if t is not None
    ]
    return ops.sqrt(sum(squares))


def dot(first, second):
    """Inner product of two lists of tensors and `None`."""
    products = [
        ops.sum(ops.cast(a, "float32") * ops.cast(b, "float32"))
        for a, b in zip(first, second)
        if a is not None and b is not None
    ]
    return sum(products)
