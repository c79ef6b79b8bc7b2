"""The mark on a layer that is to be quantized."""

import inspect

import keras

from keras_saq.policy.config import METHODS
from keras_saq.policy.config import is_config


@keras.saving.register_keras_serializable("keras_saq")
class QuantizeAnnotate(keras.layers.Wrapper):
    """A layer that `quantize_apply` quantizes. Until then it stays in float.

    It computes what the layer in it computes, with the same arguments and
    masks, is trained, saved and loaded with it, and has no weights of its own.
    It is made by `keras_saq.quantize_annotate_layer`.

    Args:
        layer: a Keras layer.
        quantize_config: what is quantized in the layer, and how, or `None`.
        **kwargs: `name` and what else a layer is given.

    Attributes:
        layer: the layer.
        quantize_config: the config.
    """

    def __init__(self, layer, quantize_config=None, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "Only a Keras 3 layer can be annotated. "
                f"Received: {layer!r} of type {type(layer).__module__}."
                f"{type(layer).__name__}"
            )
        if quantize_config is not None and not is_config(quantize_config):
            raise ValueError(
                "`quantize_config` must be a `keras_saq.QuantizeConfig`, or "
                f"an object with the methods {', '.join(METHODS)}. Received: "
                f"{quantize_config!r} of type {type(quantize_config).__name__}"
            )
        # What the layer casts its inputs to, they are cast to here.
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(layer, **kwargs)
        self.quantize_config = quantize_config
        self.autocast = layer.autocast
        self.supports_masking = True
        self._convert_input_args = layer._convert_input_args
        self._imitate_call(layer)
        if getattr(layer, "_input_shape_arg", None) is not None:
            # So that it can be the first layer of a Sequential.
            self._input_shape_arg = layer._input_shape_arg

    def _imitate_call(self, layer):
        """Keras looks at the arguments of `call` to know what to pass."""
        signature = inspect.signature(layer.call)
        names = list(signature.parameters)
        self._call_signature = signature
        self.call_signature_parameters = names
        self._call_has_training_arg = "training" in names
        self._call_has_mask_arg = "mask" in names
        self._call_has_context_arg = {
            name: name in names for name in self._call_context_args
        }

    def build(self, input_shape=None):
        if not self.layer.built and _wants_one_shape(self.layer):
            self.layer.build(input_shape)

    def call(self, *args, **kwargs):
        return self.layer(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        if not self.layer.built:
            # It is built where it is called.
            return self.layer(*args, **kwargs)
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask):
        if not self.layer.supports_masking:
            return None
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        config = super().get_config()
        return {**config, "quantize_config": serialize(self.quantize_config)}

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object
        own = ("layer", "quantize_config")
        rest = {name: v for name, v in config.items() if name not in own}
        return cls(**{name: deserialize(config[name]) for name in own}, **rest)


def _wants_one_shape(layer):
    """Whether `layer.build` can do with the shape of the first argument."""
    if getattr(layer.build, "_is_default", False):
        return False
    return len(inspect.signature(layer.build).parameters) == 1
