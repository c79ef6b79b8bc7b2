"""Quantizers by name, and what each of them is for."""

import difflib
import inspect

import keras

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.dorefa import DoReFa
from keras_saq.quantizers.lcq import LCQ
from keras_saq.quantizers.liq import LIQ
from keras_saq.quantizers.lsq import LSQ
from keras_saq.quantizers.lsq_plus import LSQPlus
from keras_saq.quantizers.moving_average import MovingAverage
from keras_saq.quantizers.nipq import NIPQ
from keras_saq.quantizers.noise_tempering import NoiseTempering
from keras_saq.quantizers.pact import PACT
from keras_saq.quantizers.power_of_two import PowerOfTwo
from keras_saq.quantizers.rand import RAND

_CLASSES = {
    "dorefa": DoReFa,
    "lcq": LCQ,
    "liq": LIQ,
    "lsq": LSQ,
    "lsq_plus": LSQPlus,
    "moving_average": MovingAverage,
    "nipq": NIPQ,
    "noise_tempering": NoiseTempering,
    "pact": PACT,
    "power_of_two": PowerOfTwo,
    "rand": RAND,
}

# What a policy decides. A quantizer that has no use for one does without;
# any other argument must be one of its own.
_COMMON = (
    "num_bits",
    "signed",
    "narrow_range",
    "channel_axes",
    "group_size",
    "initial_scale",
    "oriented",
    "name",
)


def known_names():
    """The names that `get` understands, sorted.

    Example:

    >>> from keras_saq import quantizers
    >>> "lsq" in quantizers.known_names()
    True
    """
    return sorted(_CLASSES)


def get(identifier, **kwargs):
    """Makes a quantizer from a name.

    Args:
        identifier: a name such as `"lsq"` (see `known_names`), a `Quantizer`
            class, or its serialized configuration. A `Quantizer` is returned
            as it is, and so is `None`.
        **kwargs: arguments of the class. Of `num_bits`, `signed`,
            `narrow_range`, `channel_axes`, `group_size`, `initial_scale`,
            `oriented` and `name` it receives those that it has; of anything
            else, all. A serialized configuration is complete and receives
            none.

    Returns:
        A `Quantizer`, or `None`.

    Raises:
        ValueError: if there is no quantizer of that name.

    Example:

    >>> from keras_saq import quantizers
    >>> quantizer = quantizers.get("lsq", num_bits=4, channel_axes=(-1,))
    >>> quantizer.num_bits, quantizer.channel_axes
    (4, (-1,))
    """
    if identifier is None or isinstance(identifier, Quantizer):
        return identifier
    if isinstance(identifier, dict):
        return _deserialize(identifier)
    quantizer_class = _find_class(identifier)
    accepted = _arguments(quantizer_class)
    return quantizer_class(
        **{
            name: value
            for name, value in kwargs.items()
            if name in accepted or name not in _COMMON
        }
    )


def check_role(quantizer, role):
    """Raises if a quantizer is not made for what it is used for.

    Args:
        quantizer: a `Quantizer`, or `None`.
        role: `"weights"` or `"activations"`.

    Returns:
        `quantizer`.

    Raises:
        ValueError: if it is not made for that.

    Example:

    >>> from keras_saq.quantizers import LSQ, check_role
    >>> check_role(LSQ(4), "weights").num_bits
    4
    """
    if role not in ("weights", "activations"):
        raise ValueError(
            '`role` must be "weights" or "activations". '
            f"Received: role={role!r}"
        )
    if quantizer is None or getattr(quantizer, f"for_{role}"):
        return quantizer
    hint = quantizer.role_hint or 'Use another one for them, such as "lsq".'
    raise ValueError(
        f"`{type(quantizer).__name__}` is not made for {role}. Received: "
        f"{type(quantizer).__name__}(num_bits={quantizer.num_bits}, "
        f"signed={quantizer.signed}). {hint}"
    )


def _deserialize(config):
    if "class_name" not in config:
        raise ValueError(
            "A quantizer's configuration must be what "
            "`keras.saving.serialize_keras_object(quantizer)` returns, with "
            f'the key "class_name". Received keys: {sorted(config)}'
        )
    quantizer = keras.saving.deserialize_keras_object(config)
    if not isinstance(quantizer, Quantizer):
        raise ValueError(
            "The configuration must be that of a `Quantizer`. "
            f"Received: one of a {type(quantizer).__name__}"
        )
    return quantizer


def _find_class(identifier):
    if inspect.isclass(identifier) and issubclass(identifier, Quantizer):
        return identifier
    if isinstance(identifier, str):
        name = identifier.lower().replace("-", "_").replace(" ", "_")
        for known, quantizer_class in _CLASSES.items():
            if name in (known, known.replace("_", "")):
                return quantizer_class
        close = difflib.get_close_matches(name, _CLASSES, 1)
        raise ValueError(
            f"There is no quantizer {identifier!r}. "
            f"Expected one of {known_names()}."
            + (f" Did you mean {close[0]!r}?" if close else "")
        )
    raise ValueError(
        "A quantizer must be a name, a `Quantizer` or its class or "
        f"configuration. Expected one of the names {known_names()}. "
        f"Received: {identifier!r} of type {type(identifier).__name__}"
    )


def _arguments(quantizer_class):
    """Names of the arguments of a class and of those it derives from."""
    return {
        name
        for base in quantizer_class.__mro__
        if issubclass(base, Quantizer)
        for name in inspect.signature(base.__init__).parameters
    } | {"name"}
