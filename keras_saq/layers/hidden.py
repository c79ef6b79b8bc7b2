"""The layers inside of a composite layer or model, and what each becomes.

A composite layer makes the layers it consists of by itself, when it is made
or built. So they are found by their place in it, quantized once they are
there, and remembered by the composite: a float configuration, which is what
its class understands, and a table from places to quantizers.
"""

import contextlib
import dataclasses

import keras

from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import Quantizer


@dataclasses.dataclass
class Hidden:
    """What becomes of one layer inside of a composite.

    Attributes:
        config: its `QuantizeConfig`.
        source: which layer made the tensor it reads: a place in the
            composite, or `"input:<i>"` for the i-th tensor the composite
            reads, or `None`.
    """

    config: QuantizeConfig
    source: str | None = None

    def get_config(self):
        quantize = keras.saving.serialize_keras_object(self.config)
        return {"quantize": quantize, "source": self.source}

    @classmethod
    def from_config(cls, config):
        quantize = keras.saving.deserialize_keras_object(config["quantize"])
        return cls(quantize, config["source"])


def parts(layer):
    """The layers that a layer directly consists of, without quantizers."""
    return [part for part in layer._layers if not isinstance(part, Quantizer)]


def places(root):
    """Every layer at any depth inside of `root`, with where it is.

    Returns:
        Dict from place, such as `"0/2"` (the third part of the first part),
        to the layer. A layer that is in two places has the first.
    """
    found, seen = {}, {id(root)}

    def walk(layer, place):
        for i, part in enumerate(parts(layer)):
            if id(part) in seen:
                continue
            seen.add(id(part))
            found[f"{place}{i}"] = part
            walk(part, f"{place}{i}/")

    walk(root, "")
    return found


def freeze(layer):
    """Freezes one layer, and no layer in it."""
    # Past Keras, which sets it for all layers inside, too.
    layer._trainable = False
    for variable in layer._trainable_variables:
        variable.trainable = False


def float_class(look_alike):
    """The class that a look-alike is one of, or the class itself."""
    while hasattr(look_alike, "_float_class"):
        look_alike = look_alike._float_class
    return look_alike


@contextlib.contextmanager
def as_float(layers):
    """Inside, quantized layers are what they were before.

    So that a composite's own `get_config`, which may store the layers that
    it consists of, sees nothing that its class does not know.
    """
    swapped = [
        (layer, type(layer))
        for layer in layers
        if float_class(type(layer)) is not type(layer)
    ]
    activations = []
    for layer, look_alike in swapped:
        activation = layer.__dict__.get("_float_activation")
        if activation is not None:
            activations.append((layer, layer.activation))
            layer.activation = activation
        layer.__class__ = float_class(look_alike)
    try:
        yield
    finally:
        for layer, look_alike in swapped:
            layer.__class__ = look_alike
        for layer, activation in activations:
            layer.activation = activation


def serialize_float(root):
    """`root` as its float class would be serialized."""
    with as_float([root, *places(root).values()]):
        data = keras.saving.serialize_keras_object(root)
    # Keras stores these beside the configuration and restores them itself.
    data.pop("compile_config", None)
    data.pop("build_config", None)
    return data
