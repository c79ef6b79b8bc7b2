"""Integers that fit, or an error: never another number."""

import numpy as np


def as_type(values, dtype, what):
    """Values as an array of a type, of the same numbers where it is integer.

    NumPy would wrap 2**32 + 1 around to 1, and cut 1.5 to 1.

    Args:
        values: an array, or what becomes one.
        dtype: the type; to floats numbers are rounded as usual.
        what: what they are, for the message.

    Raises:
        ValueError: if one is no such integer.

    Example:

    >>> from keras_saq.integers import as_type
    >>> as_type([1, 2], "int32", "the indices").dtype
    dtype('int32')
    >>> as_type([2**32 + 1], "int32", "the indices")
    Traceback (most recent call last):
        ...
    ValueError: Of the indices, 1 of 1 do not fit into int32, such as
        4294967297. They would become other numbers.
    """
    array, dtype = np.asarray(values), np.dtype(dtype)
    if dtype.kind not in "iu" or np.can_cast(array.dtype, dtype):
        return np.asarray(array, dtype)
    if array.dtype.kind not in "iufO":
        raise ValueError(
            f"Expected integers for {what}. Received the type {array.dtype}"
        )
    if array.dtype.kind == "O":  # integers of Python, beyond 64 bits
        array = array.astype(np.float64)
    limits = np.iinfo(dtype)
    fits = (array >= limits.min) & (array <= limits.max)
    if array.dtype.kind == "f":
        fits &= array == np.rint(array)
    if not fits.all():
        raise ValueError(
            f"Of {what}, {(~fits).sum()} of {fits.size} do not fit into "
            f"{dtype}, such as {array[~fits].flat[0]}. They would become "
            "other numbers."
        )
    return array.astype(dtype)
