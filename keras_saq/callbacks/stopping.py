"""Callbacks that stop training when the model is what was asked for."""

import pathlib
import tempfile

import keras

from keras_saq.export import export_litert
from keras_saq.export import verify_litert
from keras_saq.models.wrapper import inner_model
from keras_saq.search import layer_costs


class BudgetStopping(keras.callbacks.Callback):
    """Stops when the model costs no more bit operations than allowed.

    For quantizers that learn their bits (`keras_saq.quantizers.NIPQ`), whose
    cost comes down while they are trained. Adds `bops` to the logs of each
    epoch.

    Args:
        bops: bit operations of one inference, as `keras_saq.summary` counts
            them.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.callbacks import BudgetStopping
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    >>> x, y = np.eye(4, dtype="float32"), np.ones((4, 2), "float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> q.compile("sgd", "mse")
    >>> stop = BudgetStopping(bops=1000)
    >>> q.fit(x, y, epochs=9, callbacks=[stop], verbose=0).history["bops"]
    [512.0]
    """

    def __init__(self, bops):
        super().__init__()
        if not bops > 0:
            raise ValueError(
                f"`bops` must be a positive number. Received: bops={bops!r}"
            )
        self.bops = bops

    def on_epoch_end(self, epoch, logs=None):
        bops = float(
            sum(cost.bops for cost in layer_costs(inner_model(self.model)))
        )
        if logs is not None:
            logs["bops"] = bops
        if bops <= self.bops:
            self.model.stop_training = True


class ParityStopping(keras.callbacks.Callback):
    """Stops when the exported file decides as the Keras model does.

    At the end of an epoch the model is exported to a temporary LiteRT file
    and verified (`keras_saq.verify_litert`). Adds `top1_agreement` and
    `max_lsb` to the logs.

    Args:
        x: inputs to compare on; some hundred samples are enough.
        top1_agreement: stops at this share of equal decisions, 0 to 1.
        max_lsb: and at no larger difference from `predict`, in steps of the
            output; `None` for any.
        every: number of epochs between measurements.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.callbacks import ParityStopping
    >>> stop = ParityStopping(np.eye(4, dtype="float32"), top1_agreement=0.99)
    """

    def __init__(self, x, top1_agreement=1.0, max_lsb=None, every=1):
        super().__init__()
        if not 0 < top1_agreement <= 1:
            raise ValueError(
                "`top1_agreement` must be a share in (0, 1]. "
                f"Received: top1_agreement={top1_agreement!r}"
            )
        if int(every) < 1:
            raise ValueError(
                "`every` must be an integer of at least 1. "
                f"Received: every={every!r}"
            )
        self.x = x
        self.top1_agreement = top1_agreement
        self.max_lsb = max_lsb
        self.every = int(every)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            export_litert(self.model, path)
            parity = verify_litert(path, self.model, self.x)
        if logs is not None:
            logs["top1_agreement"] = parity.top1_agreement
            logs["max_lsb"] = float(parity.max_lsb)
        is_close = self.max_lsb is None or parity.max_lsb <= self.max_lsb
        if parity.top1_agreement >= self.top1_agreement and is_close:
            self.model.stop_training = True
