"""What is quantized in one layer."""

import copy
import operator
import types

import keras

from keras_saq.policy.foreign import fresh

_TENSORS = ("inputs", "outputs", "logits", "inner")
_FIELDS = ("weights", *_TENSORS, "bias_grid")

METHODS = (
    "get_weights_and_quantizers",
    "get_activations_and_quantizers",
    "set_quantize_weights",
    "set_quantize_activations",
    "get_output_quantizers",
)


@keras.saving.register_keras_serializable("keras_saq")
class QuantizeConfig:
    """Names the quantizers of one layer.

    It can be written in two ways. As fields, which is what the library itself
    works with:

    >>> from keras_saq.policy import QuantizeConfig
    >>> from keras_saq.quantizers import LSQ
    >>> weight = LSQ(4, narrow_range=True, channel_axes=(-1,))
    >>> config = QuantizeConfig({"kernel": weight}, inputs=LSQ(8))
    >>> QuantizeConfig.from_config(config.get_config()).inputs.num_bits
    8

    Or as a class, as users of TensorFlow Model Optimization write it. Methods
    that are not overridden answer from the fields:

    >>> import keras
    >>> @keras.saving.register_keras_serializable("doc")
    ... class KernelOnly(QuantizeConfig):
    ...     def get_weights_and_quantizers(self, layer):
    ...         return [(layer.kernel, LSQ(4, narrow_range=True))]
    ...
    ...     def get_config(self):
    ...         return {}
    >>> from keras_saq.layers import resolve
    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 2))
    >>> resolve(KernelOnly(), layer).weights["kernel"].num_bits
    4

    `keras_saq.layers.resolve` turns both into fields. The two `set_` methods
    are there for callers that know TFMOT's protocol; this library overlays
    the values while `call` runs and never sets a layer's attributes.

    Args:
        weights: dict from the name of a layer's weight attribute to the
            quantizer of that weight, e.g. `{"kernel": LSQ(4, ...)}`. A name
            can lead into a part of the layer, as `"cell.kernel"` does.
        inputs: quantizer of the layer's first input, or `None`.
        outputs: quantizer of the layer's output, or `None`.
        logits: quantizer of what goes into the layer's own activation
            function, for a `softmax` or `sigmoid` that stays in float.
        inner: quantizer of the tensor between the two steps of a separable
            convolution.
        bias_grid: whether the bias is rounded to the grid of the integer
            accumulator, `input scale * weight scale`, as the file stores it.
    """

    # For subclasses that do not call this `__init__`.
    weights = types.MappingProxyType({})
    inputs = None
    outputs = None
    logits = None
    inner = None
    bias_grid = False

    def __init__(
        self,
        weights=None,
        inputs=None,
        outputs=None,
        logits=None,
        inner=None,
        bias_grid=False,
    ):
        self.weights = dict(weights or {})
        self.inputs = inputs
        self.outputs = outputs
        self.logits = logits
        self.inner = inner
        self.bias_grid = bool(bias_grid)

    # --- The protocol of TFMOT's `QuantizeConfig`

    def get_weights_and_quantizers(self, layer):
        """List of `(variable, quantizer)` of a built layer."""
        return [
            (operator.attrgetter(name)(layer), quantizer)
            for name, quantizer in self.weights.items()
        ]

    def get_activations_and_quantizers(self, layer):
        """List of `(activation function, quantizer)`.

        From the fields: the quantizer of the logits, if there is one.
        """
        if self.logits is None:
            return []
        return [(layer.activation, self.logits)]

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts tensors where `get_weights_and_quantizers` found variables."""
        _check_count("weights", quantize_weights, len(self.weights))
        for name, value in zip(self.weights, quantize_weights, strict=True):
            _set_attribute(layer, name, value)

    def set_quantize_activations(self, layer, quantize_activations):
        """Replaces the layer's activation function."""
        expected = int(self.logits is not None)
        _check_count("activations", quantize_activations, expected)
        for activation in quantize_activations:
            layer.activation = activation

    def get_output_quantizers(self, layer):
        """List of the quantizers of the layer's outputs, at most one."""
        return [] if self.outputs is None else [self.outputs]

    # --- Copies

    def clone(self):
        """The same configuration with quantizers of its own, without state.

        Two layers must not share a quantizer: it holds the scale.
        """
        clone = copy.copy(self)
        clone.weights = {name: fresh(q) for name, q in self.weights.items()}
        for field in _TENSORS:
            quantizer = getattr(self, field)
            setattr(clone, field, quantizer and fresh(quantizer))
        return clone

    def get_config(self):
        return {
            "weights": {k: _serialize(q) for k, q in self.weights.items()},
            **{name: _serialize(getattr(self, name)) for name in _TENSORS},
            "bias_grid": self.bias_grid,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{k: _deserialize(v) for k, v in config.items()})

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return _settings(self.get_config()) == _settings(other.get_config())

    def __hash__(self):
        return hash(type(self))

    def __repr__(self):
        fields = (
            f"{field}={getattr(self, field)!r}"
            for field in _FIELDS
            if getattr(self, field)
        )
        return f"{type(self).__name__}({', '.join(fields)})"


def _serialize(quantizer):
    data = keras.saving.serialize_keras_object(quantizer)
    if isinstance(data, dict):
        # The layer builds it, in its own name scope and with its own shapes.
        data.pop("build_config", None)
    return data


def _deserialize(value):
    """Turns what `serialize_keras_object` wrote back, also inside of a dict."""
    if not isinstance(value, dict):
        return value
    if "class_name" in value and "config" in value:
        return keras.saving.deserialize_keras_object(value)
    return {key: _deserialize(entry) for key, entry in value.items()}


def _settings(value):
    """A configuration without the shapes that something was built with."""
    if isinstance(value, dict):
        return {
            key: _settings(entry)
            for key, entry in value.items()
            if key != "build_config"
        }
    return value


def _check_count(what, received, expected):
    if len(received) != expected:
        raise ValueError(
            f"This `QuantizeConfig` quantizes {expected} {what}. "
            f"Received: {len(received)}. A subclass that overrides a `get_` "
            "method must override the `set_` method beside it."
        )


def _set_attribute(layer, name, value):
    *parts, attribute = name.split(".")
    for part in parts:
        layer = getattr(layer, part)
    descriptor = getattr(type(layer), attribute, None)
    if isinstance(descriptor, property) and descriptor.fset is None:
        attribute = f"_{attribute}"  # Keras keeps `kernel` in `_kernel`
    setattr(layer, attribute, value)


def is_config(x):
    """Whether an object has the methods of a `QuantizeConfig`."""
    return not isinstance(x, type) and all(
        callable(getattr(x, name, None)) for name in METHODS
    )
