"""Batch-norm statistics, measured again when training ends."""

import keras

from keras_saq.models.reestimate import reestimate_batch_norm


class BatchNormReestimation(keras.callbacks.Callback):
    """Calls `reestimate_batch_norm` when training ends, on data of its own.

    Args:
        data: see `reestimate_batch_norm`.
        batch_size: for arrays.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> callback = keras_saq.callbacks.BatchNormReestimation(
    ...     np.ones((8, 4), "float32")
    ... )
    """

    measures_batch_norm = True  # so that `fit` need not

    def __init__(self, data, batch_size=128):
        super().__init__()
        self.data = data
        self.batch_size = batch_size

    def on_train_end(self, logs=None):
        reestimate_batch_norm(self.model, self.data, self.batch_size)
