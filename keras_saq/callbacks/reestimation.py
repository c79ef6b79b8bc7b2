"""Batch-norm statistics, measured again at the weights that are shipped."""

import keras
import numpy as np
from keras import ops

from keras_saq.models.statistics import average_statistics


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
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
    ]
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


class BatchNormReestimation(keras.callbacks.Callback):
    """Calls `reestimate_batch_norm` when training ends.

    Args:
        data: see `reestimate_batch_norm`.
        batch_size: for arrays.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> callback = keras_saq.callbacks.BatchNormReestimation(
    ...     np.ones((8, 4), "float32")
    ... )
    """

    def __init__(self, data, batch_size=128):
        super().__init__()
        self.data = data
        self.batch_size = batch_size

    def on_train_end(self, logs=None):
        reestimate_batch_norm(self.model, self.data, self.batch_size)


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
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]
