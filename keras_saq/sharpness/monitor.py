"""Callbacks that show scales, code flips and sharpness while training."""

import keras
import numpy as np
from keras import ops

from keras_saq.models import quantized_layers
from keras_saq.models.wrapper import inner_model
from keras_saq.policy import layer_paths
from keras_saq.sharpness.measure import measure_sharpness
from keras_saq.sharpness.participants import DEFAULT
from keras_saq.tensorboard import ScalarWriter
from keras_saq.tensorboard import require_tensorflow


class QuantizationMonitor(keras.callbacks.Callback):
    """Measures the quantizers of a model at the end of epochs.

    Adds to the logs of the epoch, and so to `History` and to callbacks that
    come later in the list:

    * `code_flip_rate`: share of the weights whose integer code is not that of
      the last measurement,
    * `weight_scale` and `activation_scale`: geometric means of the scales,
    * `weight_bits`: bits per quantized weight, on average.

    With a `log_dir` it writes all of that for TensorBoard, and the mean
    scale, the bits and the flip rate of each quantizer under its name. This
    needs TensorFlow.

    Args:
        log_dir: a folder for TensorBoard, or `None`.
        every: number of epochs between measurements.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.callbacks import QuantizationMonitor
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    >>> data = np.eye(4, dtype="float32"), np.ones((4, 2), "float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=data[0])
    >>> q.compile("sgd", "mse")
    >>> monitor = QuantizationMonitor()
    >>> history = q.fit(*data, callbacks=[monitor], verbose=0).history
    >>> history["weight_bits"]
    [8.0]
    """

    def __init__(self, log_dir=None, every=1):
        super().__init__()
        if int(every) < 1:
            raise ValueError(
                "`every` must be an integer of at least 1. "
                f"Received: every={every!r}"
            )
        if log_dir is not None:
            require_tensorflow()
        self.log_dir = log_dir
        self.every = int(every)
        self._codes = {}
        self._writer = None

    def on_train_begin(self, logs=None):
        self._codes = {}
        self._flip_rates()
        if self.log_dir is not None:
            self._writer = ScalarWriter(self.log_dir)

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        found, details = self.measure()
        if logs is not None:
            logs.update(found)
        if self._writer is not None:
            self._writer.write(found | details, epoch)

    def measure(self):
        """Two dicts of numbers: for the logs, and for TensorBoard alone."""
        flips, scales, bits = self._flip_rates(), self._scales(), self._bits()
        sizes = [c.size for c in self._codes.values()]
        found = {}
        if flips:
            found["code_flip_rate"] = _mean(flips.values(), sizes)
            found["weight_bits"] = _mean(bits.values(), sizes)
        for kind in ("weight", "activation"):
            means = [m for k, m in scales.values() if k == kind]
            if means:
                mean = np.exp(np.mean(np.log(means)))
                found[f"{kind}_scale"] = float(mean)
        details = {f"flip_rate/{k}": v for k, v in flips.items()}
        details |= {f"scale/{k}": v for k, (_, v) in scales.items()}
        details |= {f"bits/{k}": v for k, v in bits.items()}
        return found, details

    def _layers(self):
        """Pairs of a path, which no other layer has, and a layer."""
        paths = {}
        for path, layer in layer_paths(inner_model(self.model)):
            paths.setdefault(id(layer), path)
        for layer in quantized_layers(self.model):
            yield paths.get(id(layer), layer.path), layer

    def _weights(self):
        for path, layer in self._layers():
            for name, variable, quantizer in layer.quantized_weights():
                yield f"{path}/{name}", variable, quantizer

    def _flip_rates(self):
        """Dict from a weight's name to its flip rate since the last call."""
        rates = {}
        for name, variable, quantizer in self._weights():
            codes = np.asarray(quantizer.codes(variable))
            before = self._codes.get(name, codes)
            rates[name] = float(np.mean(codes != before))
            self._codes[name] = codes
        return rates

    def _bits(self):
        """Dict from a weight's name to its bits."""
        return {name: float(q.num_bits) for name, _, q in self._weights()}

    def _scales(self):
        """Dict from a quantizer's name to its kind and mean scale."""
        scales = {}
        for path, layer in self._layers():
            weights = {id(q) for _, _, q in layer.quantized_weights()}
            for i, quantizer in enumerate(layer.quantizers):
                kind = "weight" if id(quantizer) in weights else "activation"
                scale = ops.convert_to_numpy(quantizer.scale)
                mean = float(np.exp(np.mean(np.log(scale))))
                scales[f"{path}/{i}"] = kind, mean
        return scales


class SharpnessMonitor(QuantizationMonitor):
    """A `QuantizationMonitor` that also measures how sharp the loss is.

    Adds to the logs of the epoch what that does, and:

    * `sharpness`: rise of the loss at distance `rho`, see
      `keras_saq.sharpness.measure`,
    * `gradient_norm`: of the loss on `data`.

    Args:
        data: a fixed set to measure on, as for `measure_sharpness`; some
            hundred samples are enough.
        rho: radius; by default that of the model, at that moment, or 0.05.
        log_dir: a folder for TensorBoard, or `None`.
        every: number of epochs between measurements.
        perturb: as for `measure_sharpness`.
        batch_size: for arrays.

    Raises:
        ValueError: when training begins, if `rho` is not given and that of
            the model is 0.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> from keras_saq.sharpness import SharpnessMonitor
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    >>> data = np.eye(4, dtype="float32"), np.ones((4, 2), "float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=data[0])
    >>> saq = keras_saq.SAQModel(q, rho=0.1)
    >>> saq.compile("sgd", "mse")
    >>> monitor = SharpnessMonitor(data)
    >>> history = saq.fit(*data, callbacks=[monitor], verbose=0).history
    >>> "sharpness" in history and "code_flip_rate" in history
    True
    """

    def __init__(
        self,
        data,
        rho=None,
        log_dir=None,
        every=1,
        perturb=DEFAULT,
        batch_size=128,
    ):
        super().__init__(log_dir, every)
        self.data = data
        self.rho = rho
        self.perturb = perturb
        self.batch_size = batch_size

    def on_train_begin(self, logs=None):
        if self.rho is None and getattr(self.model, "rho", 1) == 0:
            raise ValueError(
                "Sharpness cannot be measured at the model's radius of 0. "
                "Give `SharpnessMonitor` a `rho`, such as `rho=0.05`."
            )
        super().on_train_begin(logs)

    def measure(self):
        """Two dicts of numbers: for the logs, and for TensorBoard alone."""
        measured = measure_sharpness(
            self.model,
            self.data,
            rho=self._radius(),
            eigenvalue=False,
            perturb=self.perturb,
            batch_size=self.batch_size,
        )
        found, details = super().measure()
        return {
            "sharpness": measured.rise,
            "gradient_norm": measured.gradient_norm,
            **found,
        }, details

    def _radius(self):
        if self.rho is not None:
            return self.rho
        rho = getattr(self.model, "rho", 0.05)
        if callable(rho):
            # A schedule may have come down to 0.
            count = self.model.optimizer.iterations
            rho = max(float(ops.convert_to_numpy(rho(count))), 1e-6)
        return rho


def _mean(values, sizes):
    return float(np.average(list(values), weights=sizes))
