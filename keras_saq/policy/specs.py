"""Which kind of quantizer: a name, or a serialised quantizer.

A rule says how many bits; what else a quantizer needs (channel axes, sign)
depends on the layer. So a kind is kept as data, and a quantizer is made of it
for each place.
"""

import keras

from keras_saq import quantizers
from keras_saq.policy.foreign import is_quantizer


def normalize(spec, what):
    """A kind of quantizer as a string or a serialised dict.

    Args:
        spec: a name such as `"lsq"`, a quantizer, or what
            `keras.saving.serialize_keras_object` makes of one.
        what: name of the argument, for messages.
    """
    if is_quantizer(spec):
        return keras.saving.serialize_keras_object(spec)
    if isinstance(spec, str) and spec:
        return spec
    if isinstance(spec, dict) and {"class_name", "config"} <= spec.keys():
        return spec
    raise ValueError(
        f"`{what}` must be the name of a quantizer such as 'lsq', a "
        "quantizer, or a serialised quantizer. "
        f"Received: {what}={spec!r} of type {type(spec).__name__}"
    )


def make_quantizer(spec, **kwargs):
    """A quantizer of a kind, with the settings that a place asks for.

    Args:
        spec: what `normalize` returns.
        **kwargs: settings such as `num_bits` and `channel_axes`; they come
            before those of a serialised quantizer.

    Returns:
        A new quantizer.

    Example:

    >>> from keras_saq.policy import make_quantizer
    >>> make_quantizer("lsq", num_bits=4, narrow_range=True).num_bits
    4
    """
    if spec == "lsq":
        return quantizers.LSQ(**kwargs)
    if isinstance(spec, str):
        return quantizers.get(spec, **kwargs)
    name = kwargs.get("name")
    config = {**spec["config"], **kwargs}
    if name is None:
        config.pop("name", None)
    return keras.saving.deserialize_keras_object({**spec, "config": config})
