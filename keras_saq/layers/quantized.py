"""A quantized look-alike of any layer class."""

import functools
import inspect
import operator

import keras
from keras import ops
from keras import tree

from keras_saq.layers import kinds
from keras_saq.layers.batch_normalization import call_on_bias_grid
from keras_saq.layers.links import find_source
from keras_saq.layers.overlay import Overlay
from keras_saq.layers.overlay import read_uncast
from keras_saq.layers.perturbation import perturbed
from keras_saq.policy import QuantizeConfig


class Quantized:
    """Mixin that turns a layer class into its quantized look-alike.

    `quantized_class(Conv2D)` is a subclass of `Conv2D`: it has its variables,
    its configuration and its `isinstance`. While its `call` runs, and only
    then, its weights read as their fake-quantized values (see `Overlay`), so
    that `layer.kernel` stays the latent float weight that is trained and
    saved. The look-alike serialises as the float layer plus a
    `QuantizeConfig`, under one registered name for every class.
    """

    @classmethod
    def from_config(cls, config):
        """The quantized layer that a float layer and quantizers make."""
        deserialize = keras.saving.deserialize_keras_object
        layer = config["layer"]
        if isinstance(layer, dict):
            layer = deserialize(layer)
        quantize = config["quantize"]
        if isinstance(quantize, dict):
            quantize = deserialize(quantize)
        float_class = type(layer)
        look_alike = float_class.from_config.__func__(
            quantized_class(float_class), layer.get_config()
        )
        look_alike._attach(quantize)
        return look_alike

    def get_config(self):
        activation = self.__dict__.get("_float_activation")
        if activation is None:
            config = super().get_config()
        else:
            wrapped, self.activation = self.activation, activation
            try:
                config = super().get_config()
            finally:
                self.activation = wrapped
        layer = self._float_class.from_config(config)
        return {
            "layer": keras.saving.serialize_keras_object(layer),
            "quantize": keras.saving.serialize_keras_object(
                self.quantize_config
            ),
        }

    def _attach(self, config):
        """Makes the quantizers children, before the layer is built."""
        self.__dict__["quantize_config"] = config
        self.__dict__["_source"] = None
        for name, quantizer in config.weights.items():
            setattr(self, f"{name}_quantizer", quantizer)
        self.input_quantizer = config.inputs
        self.output_quantizer = config.outputs
        self.logits_quantizer = config.logits
        if config.logits is not None:
            self.__dict__["_float_activation"] = self.activation
            self.activation = functools.partial(
                _quantize_then, config.logits, self.activation
            )

    @property
    def quantizers(self):
        """Every quantizer of the layer, weights first."""
        config = self.quantize_config
        others = (config.inputs, config.logits, config.outputs)
        return [*config.weights.values(), *(q for q in others if q is not None)]

    def weight_quantizer(self, name):
        """The quantizer of one weight, e.g. of `"kernel"`."""
        return self.quantize_config.weights[name]

    def quantized_weights(self):
        """List of `(name, latent variable, quantizer)`, one per weight.

        A name can lead into a part of the layer: `"cell.kernel"` of an LSTM.
        """
        return [
            (name, operator.attrgetter(name)(self), quantizer)
            for name, quantizer in self.quantize_config.weights.items()
        ]

    def initialize_weight_scales(self):
        """Takes the scale of each weight from the weight itself."""
        for _, variable, quantizer in self.quantized_weights():
            quantizer.initialize(variable)

    def _build_quantizers(self):
        for _, variable, quantizer in self.quantized_weights():
            if not quantizer.built:
                quantizer.build(variable.shape)
        # A tensor's quantizer has one scale, whatever the tensor's shape.
        for quantizer in self.quantizers:
            if not quantizer.built:
                quantizer.build(())

    def __call__(self, *args, **kwargs):
        self._link(args, kwargs)
        return super().__call__(*args, **kwargs)

    def _link(self, args, kwargs):
        if kinds.is_weighted(self) or kinds.is_batch_norm(self):
            tensors = tree.flatten((args, kwargs))
            if tensors and isinstance(tensors[0], keras.KerasTensor):
                source = find_source(tensors[0])
                if source is not None:
                    self.__dict__["_source"] = source

    @property
    def source(self):
        """The layer that makes this layer's input, where that matters."""
        return self._source

    def input_scale(self):
        """Scale of the integers that this layer reads, or `None`."""
        if self.input_quantizer is not None:
            return self.input_quantizer.scale
        if self._source is not None and self._source.output_quantizer:
            return self._source.output_quantizer.scale
        return None

    def _quantized_call(self, float_call, inputs, *args, **kwargs):
        if self.input_quantizer is not None:
            inputs = _quantize(self.input_quantizer, inputs)
        values = self._overlaid_values()
        if values:
            with Overlay(values):
                outputs = float_call(self, inputs, *args, **kwargs)
        else:
            outputs = float_call(self, inputs, *args, **kwargs)
        if self.output_quantizer is not None:
            outputs = _quantize(self.output_quantizer, outputs)
        return outputs

    def _overlaid_values(self):
        values = []
        for _, variable, quantizer in self.quantized_weights():
            quantized = quantizer(read_uncast(variable))
            values.append((variable, perturbed(variable, quantized)))
        if self.quantize_config.bias_grid and kinds.is_weighted(self):
            bias = getattr(self, "bias", None)
            input_scale = self.input_scale()
            if bias is not None and input_scale is not None:
                (quantizer,) = self.quantize_config.weights.values()
                step = input_scale * ops.reshape(quantizer.scale, (-1,))
                values.append((bias, snap(read_uncast(bias), step)))
        return values


def snap(bias, step):
    """`bias` rounded to multiples of `step`, straight-through gradient."""
    return bias + ops.stop_gradient(step * ops.round(bias / step) - bias)


def _quantize(quantizer, tensors):
    return tree.map_structure(
        lambda x: ops.cast(quantizer(x), x.dtype), tensors
    )


def _quantize_then(quantizer, activation, x):
    return activation(_quantize(quantizer, x))


@functools.cache
def quantized_class(float_class):
    """The quantized look-alike of a layer class, made once per class."""
    float_call = (
        call_on_bias_grid
        if issubclass(float_class, keras.layers.BatchNormalization)
        else float_class.call
    )
    first = list(inspect.signature(float_class.call).parameters)[1]

    @functools.wraps(float_class.call)
    def call(self, *args, **kwargs):
        if not args:
            args = (kwargs.pop(first),)
        return self._quantized_call(float_call, *args, **kwargs)

    # Keras reads the signatures of `build` and `call`: keep the originals'.
    @functools.wraps(float_class.build)
    def build(self, *args, **kwargs):
        float_class.build(self, *args, **kwargs)
        self._build_quantizers()

    # A weightless layer would otherwise count as built, and be locked,
    # before it has its quantizers.
    build.__dict__.pop("_is_default", None)

    look_alike = type(
        f"Quantized{float_class.__name__}",
        (Quantized, float_class),
        {
            "build": build,
            "call": call,
            "_float_class": float_class,
            "__module__": __name__,
            "__doc__": f"Quantized look-alike of `{float_class.__name__}`.",
        },
    )
    # One name for all: `from_config` finds the class in the configuration.
    return keras.saving.register_keras_serializable("keras_saq", "Quantized")(
        look_alike
    )


keras.saving.register_keras_serializable("keras_saq", "Quantized")(Quantized)


def quantize_layer(layer, config):
    """An unbuilt quantized copy of a layer, without its weights.

    Args:
        layer: a float Keras layer.
        config: a `QuantizeConfig`.

    Returns:
        A layer of class `quantized_class(type(layer))`.
    """
    if not isinstance(config, QuantizeConfig):
        raise ValueError(
            "`config` must be a `keras_saq.policy.QuantizeConfig`. "
            f"Received: {config!r}"
        )
    return Quantized.from_config({"layer": layer, "quantize": config})
