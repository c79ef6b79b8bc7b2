"""Batch-norm statistics, measured again at the weights that are shipped."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_saq.models.statistics import average_statistics

# Of the training data, when `fit` ends: enough for a mean, and soon done.
MAX_SAMPLES = 2048
MAX_BATCHES = 64


def reestimate_batch_norm(model, data, batch_size=128):
    """Measures the moving statistics of batch normalization anew.

    Moving averages lag behind the weights, and codes that still flip at low
    bits make them lag more. This runs the model in training mode over `data`
    and gives every BatchNormalization the plain mean of its batches'
    statistics (as in torch.optim.swa_utils.update_bn; for quantized networks
    e.g. Nagel et al., "Overcoming Oscillations in QAT", arXiv 2203.11086).
    Nothing but the moving statistics changes.

    Args:
        model: a built Keras model, quantized or not.
        data: an array, a list or dict of arrays, or an iterable of batches;
            of tuples the first part is taken. Some thousand samples do.
        batch_size: for arrays.

    Returns:
        The number of layers whose statistics were measured.

    Raises:
        ValueError: if `data` has no batch, or makes a statistic that is not
            finite; the model is then as it was.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.BatchNormalization()(inputs)
    >>> model = keras.Model(inputs, x)
    >>> keras_saq.callbacks.reestimate_batch_norm(
    ...     model, np.ones((8, 4), "float32")
    ... )
    1
    """
    norms = trainable_norms(model)
    if not norms:
        return 0
    statistics = {
        id(v) for n in norms for v in (n.moving_mean, n.moving_variance)
    }
    # Copies: on torch the array would be the variable.
    kept = [(v, np.copy(ops.convert_to_numpy(v))) for v in model.variables]
    try:
        batches = _batches(data, batch_size)
        count = average_statistics(model, norms, batches)
        if not count:
            raise ValueError(
                "Batch-norm statistics need at least one batch. `data` was "
                "empty."
            )
        for norm in norms:
            if not np.all(np.isfinite(ops.convert_to_numpy(norm.moving_mean))):
                raise ValueError(
                    "The data make a mean that is not finite at the layer "
                    f"'{norm.path}'. The statistics were left as they were. "
                    "Look for NaN or infinity in `data`."
                )
        # Seeds and whatever else training mode moves go back.
        kept = [(v, value) for v, value in kept if id(v) not in statistics]
    finally:
        for variable, value in kept:
            variable.assign(value)
    return len(norms)


def trainable_norms(model):
    """The batch norms of a model whose statistics training moves."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]


def reestimate_after_fit(model, x, batch_size, validation_split):
    """Measures batch norms again on what a model was fitted to.

    On at most 2,048 samples and 64 batches, spread over all of arrays and of
    a `PyDataset`, the first ones of anything else. Nothing is done where there
    is no batch norm, where training ended in numbers that are not finite, or
    where the processes of a distribution hold different parts of the data.

    Args:
        model: a model that `fit` has just trained.
        x: what `fit` was given.
        batch_size: as well; `None` for 32.
        validation_split: as well; the last part of arrays is not used.

    Returns:
        The number of layers whose statistics were measured.
    """
    if not trainable_norms(model) or _num_processes() > 1:
        return 0
    finite = all(
        np.all(np.isfinite(ops.convert_to_numpy(v)))
        for v in model.trainable_variables
    )
    if not finite:
        return 0
    batches = _some_batches(x, batch_size or 32, validation_split)
    if batches is None:
        warnings.warn(
            "The batch norms keep their moving statistics, which lag behind "
            "the weights: `fit` was given an iterator, which cannot be read "
            "again. To measure them, call\n\n"
            "    keras_saq.callbacks.reestimate_batch_norm(model, x)\n",
            stacklevel=3,
        )
        return 0
    try:
        return reestimate_batch_norm(model, batches)
    except ValueError:
        return 0  # of inputs that are not finite


def _num_processes():
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return jax.process_count()


def _some_batches(x, batch_size, validation_split):
    """Batches of `x`, or `None` where it can be read only once."""
    leaves = keras.tree.flatten(x)
    if leaves and all(hasattr(leaf, "shape") for leaf in leaves):
        count = int(len(leaves[0]) * (1 - validation_split))
        size = min(batch_size, count)
        number = _number_of_batches(count // size, size)
        starts = [i * (count // size) // number * size for i in range(number)]
        # A list of one array, which Keras takes for the array.
        x = x[0] if isinstance(x, (list, tuple)) and len(x) == 1 else x
        return (
            keras.tree.map_structure(lambda a: a[start : start + size], x)
            for start in starts
        )
    if isinstance(x, keras.utils.PyDataset) and x.num_batches:
        size = len(keras.tree.flatten(_inputs(x[0]))[0])
        number = _number_of_batches(x.num_batches, size)
        return (_inputs(x[i * x.num_batches // number]) for i in range(number))
    if iter(x) is x:
        return None
    return _until_enough(x)


def _number_of_batches(available, size):
    return max(1, min(available, MAX_BATCHES, -(-MAX_SAMPLES // max(size, 1))))


def _until_enough(batches):
    seen = 0
    for i, batch in enumerate(batches):
        if i == MAX_BATCHES or seen >= MAX_SAMPLES:
            return
        x = _inputs(batch)
        seen += len(keras.tree.flatten(x)[0])
        yield x


def _inputs(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _batches(data, batch_size):
    if isinstance(data, tuple):
        data = data[0]
    leaves = keras.tree.flatten(data)
    if leaves and all(hasattr(leaf, "shape") for leaf in leaves):
        for start in range(0, len(leaves[0]), batch_size):
            yield keras.tree.map_structure(
                lambda leaf: leaf[start : start + batch_size], data
            )
        return
    for batch in data:
        yield _inputs(batch)
