"""What a model calls its inputs and outputs."""

import keras
from keras import tree


def names_of(structure, fallbacks):
    """A name for each tensor of a structure, each different.

    Args:
        structure: a tensor, or lists, tuples and dicts of tensors: what a
            model takes or returns.
        fallbacks: names of the tensors, in order, for those that the
            structure gives none; keys of dicts do.

    Returns:
        List of names in the order of `keras.tree.flatten`.

    Example:

    >>> import keras
    >>> from keras_saq.models.names import names_of
    >>> a, b = keras.Input((1,)), keras.Input((1,))
    >>> names_of({"age": a, "sex": [b]}, ["dense", "dense_1"])
    ['age', 'sex/0']
    >>> names_of([a, b], ["dense", "dense"])
    ['dense', 'dense_1']
    """
    names = []
    paths = _paths(structure)
    for place, fallback in zip(paths, fallbacks):
        has_key = any(isinstance(step, str) for step in place)
        name = "/".join(map(str, place)) if has_key else fallback
        unique, number = name, 1
        while unique in names:
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def _paths(structure, place=()):
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from _paths(structure[key], (*place, key))
    elif isinstance(structure, (list, tuple)):
        for i, part in enumerate(structure):
            yield from _paths(part, (*place, i))
    elif isinstance(structure, keras.KerasTensor):
        yield place
    elif structure is not None:
        for i, _ in enumerate(tree.flatten(structure)):
            yield (*place, i)
