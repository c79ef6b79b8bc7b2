"""Which kind of quantizer: a name, or a serialised quantizer.

A rule says how many bits; what else a quantizer needs (channel axes, sign)
depends on the layer. So a kind is kept as data, and a quantizer is made of it
for each place.
"""

import keras

from keras_saq import quantizers
from keras_saq.untrusted import root_cause


def normalize(spec, what):
    """A kind of quantizer as a string or a serialised dict.

    Args:
        spec: a name such as `"lsq"`, a quantizer, or what
            `keras.saving.serialize_keras_object` makes of one.
        what: name of the argument, for messages.

    Raises:
        ValueError: if it is none of these, or there is no such name.
    """
    if isinstance(spec, quantizers.Quantizer):
        spec = keras.saving.serialize_keras_object(spec)
    if isinstance(spec, str) and spec:
        quantizers.get(spec, name=what)  # raises if there is none
        return spec
    if isinstance(spec, dict) and {"class_name", "config"} <= spec.keys():
        return {k: v for k, v in spec.items() if k != "build_config"}
    raise ValueError(
        f"`{what}` must be the name of a quantizer such as 'lsq', a "
        "quantizer, or a serialised quantizer. "
        f"Received: {what}={spec!r} of type {type(spec).__name__}"
    )


def _config_of(spec):
    if not isinstance(spec["config"], dict):
        raise ValueError(
            f"The quantizer {spec['class_name']!r} of the policy has no table "
            f"of settings. Received: config={spec['config']!r}"
        )
    return spec["config"]


def make_quantizer(spec, **kwargs):
    """A quantizer of a kind, with the settings that a place asks for.

    Args:
        spec: what `normalize` returns.
        **kwargs: settings such as `num_bits` and `channel_axes`, of which a
            quantizer receives those that it has. They come before those of a
            serialised quantizer.

    Returns:
        A new quantizer.

    Example:

    >>> from keras_saq.policy import make_quantizer
    >>> make_quantizer("lsq", num_bits=4, narrow_range=True).num_bits
    4
    """
    if isinstance(spec, str):
        return quantizers.get(spec, **kwargs)
    config = {k: v for k, v in _config_of(spec).items() if k != "name"}
    known = {*config, "name"}
    config |= {k: v for k, v in kwargs.items() if k in known}
    try:
        made = keras.saving.deserialize_keras_object({**spec, "config": config})
    except Exception as error:  # whatever a class or Keras raises
        raise ValueError(
            f"The quantizer {spec['class_name']!r} of the policy cannot be "
            f"made: {root_cause(error)}"
        ) from error
    if not isinstance(made, quantizers.Quantizer):
        raise ValueError(
            f"{spec['class_name']!r} of the policy is no quantizer of "
            f"keras_saq, but {type(made).__name__}."
        )
    return made
