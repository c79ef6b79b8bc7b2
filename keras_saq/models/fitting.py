"""What a call of `fit` says of itself."""

import inspect

import keras

_SIGNATURE = inspect.signature(keras.Model.fit)


def arguments_of_fit(*args, **kwargs):
    """Dict of the arguments of `keras.Model.fit`, defaults included."""
    bound = _SIGNATURE.bind(None, *args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def updates_of_fit(optimizer, given):
    """Between which updates of the optimizer a call of `fit` is.

    Args:
        optimizer: a Keras optimizer.
        given: what `arguments_of_fit` returns.

    Returns:
        `(first, last)`: counts of updates at the start of epoch 0, also where
        `fit` goes on from a later one, and at the end of the last; `last` is
        `None` where the number of steps in an epoch is not known.
    """
    count = int(keras.ops.convert_to_numpy(optimizer.iterations))
    steps = _steps_per_epoch(given)
    if steps is None:
        return count, None
    updates = steps / (optimizer.gradient_accumulation_steps or 1)
    first = count - given["initial_epoch"] * updates
    return first, first + given["epochs"] * updates


def _steps_per_epoch(given):
    if given["steps_per_epoch"]:
        return given["steps_per_epoch"]
    x = given["x"]
    leaves = keras.tree.flatten(x)
    if leaves and all(hasattr(leaf, "shape") for leaf in leaves):
        count = int(len(leaves[0]) * (1 - given["validation_split"]))
        return -(-count // (given["batch_size"] or 32))
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    if hasattr(x, "cardinality"):  # a tf.data.Dataset; < 0: not known
        return int(x.cardinality()) if int(x.cardinality()) > 0 else None
    return len(x) if hasattr(x, "__len__") else None
