"""A callback that stops the training of scales."""

import keras
import numpy as np
from keras import ops

from keras_saq.sharpness.participants import scale_variables


class ScaleFreezing(keras.callbacks.Callback):
    """Keeps every quantizer's scale as it is from an epoch on.

    At low bits a scale that still moves flips codes in whole channels at once,
    long after the weights have settled. Freezing it for the last epochs lets
    the weights settle on one grid.

    Scales are held by a constraint on their variables, which every Keras
    optimizer applies after its update: momentum does not move them either,
    and optimizer and model keep their variables, so checkpoints stay
    compatible. The train step is compiled once more. When training ends, the
    scales are free again.

    Args:
        epoch: the first epoch, counted from 0, in which scales stay.

    Raises:
        ValueError: when training begins, if the model has no trained scale.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.callbacks import ScaleFreezing
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    >>> x, y = np.eye(4, dtype="float32"), np.ones((4, 2), "float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> q.compile("sgd", "mse")
    >>> scale = float(q.layers[-1].input_quantizer.scale)
    >>> history = q.fit(x, y, callbacks=[ScaleFreezing(0)], verbose=0)
    >>> float(q.layers[-1].input_quantizer.scale) == scale
    True
    """

    def __init__(self, epoch):
        super().__init__()
        if int(epoch) != epoch or epoch < 0:
            raise ValueError(
                "`epoch` must be an integer of at least 0. "
                f"Received: epoch={epoch!r}"
            )
        self.epoch = int(epoch)
        self._held = None

    def on_train_begin(self, logs=None):
        self._held = None
        if not scale_variables(self.model):
            raise ValueError(
                "`ScaleFreezing` found no trained scale in the model "
                f"'{self.model.name}'. Quantize it first: "
                '`keras_saq.quantize_model(model, "w4a8")`.'
            )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch < self.epoch or self._held is not None:
            return
        self._held = [(v, v.constraint) for v in scale_variables(self.model)]
        for variable, _ in self._held:
            variable.constraint = _Constant(variable)
        self.model.make_train_function(force=True)

    def on_train_end(self, logs=None):
        for variable, constraint in self._held or []:
            variable.constraint = constraint
        if self._held:
            # The next `fit` would find the step that holds them.
            self.model.train_function = None


class _Constant(keras.constraints.Constraint):
    """What the variable was, whatever it becomes."""

    def __init__(self, variable):
        # On torch the array would share the variable's memory.
        self.value = np.array(ops.convert_to_numpy(variable.value))

    def __call__(self, w):
        return ops.convert_to_tensor(self.value, dtype=w.dtype)
