"""A quantized look-alike of any model class."""

import dataclasses
import functools

import keras

from keras_saq.layers.quantized import Quantized
from keras_saq.layers.saving import Saveable
from keras_saq.layers.saving import refuse_legacy_format
from keras_saq.layers.saving import renamed
from keras_saq.models.calibration import calibrate_from_fit_data
from keras_saq.models.calibration import require_calibrated
from keras_saq.models.comparison import Comparison
from keras_saq.models.fitting import arguments_of_fit
from keras_saq.models.recovery import recovery
from keras_saq.models.reestimate import reestimate_after_fit
from keras_saq.policy import layer_paths

# Filled by rooms above: formats beyond those of `keras.Model.export`, what
# each of them will say of a model, and the table of bits and bytes that
# `summary` prints.
EXPORTERS = {}
FORECASTS = {}
SUMMARIES = {}


@dataclasses.dataclass(frozen=True)
class FloatLayer:
    """A layer that stays in float, and why."""

    path: str
    layer_type: str
    reason: str


class Trainable:
    """What every model of quantized layers adds to `keras.Model`."""

    @functools.wraps(keras.Model.compile)
    def compile(self, *args, jit_compile="auto", **kwargs):
        if jit_compile == "auto" and _xla_is_slower():
            jit_compile = False
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def compile_from_config(self, config):
        """Compiles as the saved model was, when a file is loaded."""
        # Keras only does this itself where `compile` is not overridden.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and getattr(self, "optimizer", None) is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, *args, reestimate_batch_norm=True, **kwargs):
        """`keras.Model.fit`; scales come from the first batch if missing.

        When it is done, batch norms get the plain mean of their statistics on
        some of the training data: moving averages lag behind the weights, and
        at low bits by many points of accuracy. Epochs, and what callbacks
        save, have the moving ones.

        Args:
            x: as in `keras.Model.fit`, and so are all others.
            reestimate_batch_norm: whether to do that; the callback
                `BatchNormReestimation` does it in its own way.
        """
        x = calibrate_from_fit_data(self, x)
        with recovery(self):
            history = super().fit(x, *args, **kwargs)
        given = arguments_of_fit(x, *args, **kwargs)
        if reestimate_batch_norm and history.epoch and not _measured(given):
            reestimate_after_fit(
                self, x, given["batch_size"], given["validation_split"]
            )
        return history

    def evaluate(self, *args, **kwargs):
        """`keras.Model.evaluate`."""
        require_calibrated(self, "evaluate")
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """`keras.Model.predict`."""
        require_calibrated(self, "predict")
        return super().predict(*args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        """`keras.Model.save`; quantized layers go into `.keras` files."""
        if any(isinstance(a, Quantized) for a in self._flatten_layers()):
            refuse_legacy_format(self.name, filepath)
        return super().save(filepath, *args, **kwargs)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """`keras.Model.export`; `format="litert"` writes integers.

        See `keras_saq.export_litert` for the arguments of that format.
        """
        if format in EXPORTERS:
            return EXPORTERS[format](self, filepath, **kwargs)
        return super().export(filepath, format=format, **kwargs)


def _measured(given):
    """Whether a callback of `fit` has measured batch norms itself."""
    callbacks = given["callbacks"]
    callbacks = getattr(callbacks, "callbacks", callbacks)
    return any(
        getattr(each, "measures_batch_norm", False)
        for each in keras.tree.flatten(callbacks or [])
    )


def _xla_is_slower():
    """TensorFlow on CPU: measured 1.3 to 1.6 times slower with XLA."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    devices = tf.config.list_logical_devices()
    return not any(d.device_type in ("GPU", "TPU") for d in devices)


class QuantizedModel(Saveable, Trainable):
    """Mixin that turns a model class into its quantized look-alike.

    A quantized Functional is still a Functional, a Sequential a Sequential.
    Added: scales that are still missing are taken from the first batch of
    `fit`, and `export(..., format="litert")` writes integers.

    Attributes:
        float_layers: list of `FloatLayer`: what the policy could not quantize.
        comparison: the `Comparison` with the float model on calibration data,
            of the time when the scales were taken; `None` without data.
    """

    comparison = None

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = as_quantized_model(
            keras.saving.deserialize_keras_object(
                renamed(config["model"], config.get("name")),
                custom_objects=custom_objects,
            )
        )
        model.float_layers = [
            FloatLayer(**row) for row in config.get("float_layers", ())
        ]
        if config.get("comparison"):
            model.comparison = Comparison.from_dict(config["comparison"])
        # Keras tells the layers in a frozen model, and forgets the model.
        frozen = set(config.get("frozen", ()))
        for path, part in [("", model), *layer_paths(model)]:
            if path in frozen:
                part._trainable = False
        return model

    @property
    def float_layers(self):
        return self.__dict__.get("_float_layers", [])

    @float_layers.setter
    def float_layers(self, rows):
        # Past Keras, which would track a list as state of the model.
        self.__dict__["_float_layers"] = list(rows)

    def summary(self, *args, print_fn=None, **kwargs):
        """`keras.Model.summary`, and `keras_saq.summary` below it."""
        super().summary(*args, print_fn=print_fn, **kwargs)
        SUMMARIES["quantization"](self, print_fn=print_fn)

    def get_config(self):
        refuse_legacy_format(self.name)
        look_alike = type(self)
        self.__class__ = look_alike._float_class
        try:
            model = keras.saving.serialize_keras_object(self)
        finally:
            self.__class__ = look_alike
        # Keras stores these beside this configuration and restores them.
        model.pop("compile_config", None)
        model.pop("build_config", None)
        rows = [dataclasses.asdict(row) for row in self.float_layers]
        frozen = [
            path
            for path, part in [("", self), *layer_paths(self)]
            if isinstance(part, keras.Model) and not part.trainable
        ]
        return {
            "name": self.name,
            "model": model,
            "float_layers": rows,
            "comparison": self.comparison and self.comparison.to_dict(),
            "frozen": frozen,
        }


@functools.cache
def _quantized_model_class(float_class):
    # A model with a class of its own is a look-alike already, as a layer.
    users = getattr(float_class, "_float_class", float_class)
    look_alike = type(
        f"Quantized{users.__name__}",
        (QuantizedModel, float_class),
        {"_float_class": float_class, "__module__": __name__},
    )
    return keras.saving.register_keras_serializable(
        "keras_saq", "QuantizedModel"
    )(look_alike)


keras.saving.register_keras_serializable("keras_saq", "QuantizedModel")(
    QuantizedModel
)


def as_quantized_model(model):
    """Gives a model of quantized layers its quantized look-alike class."""
    if not isinstance(model, QuantizedModel):
        model.__class__ = _quantized_model_class(type(model))
    return model
