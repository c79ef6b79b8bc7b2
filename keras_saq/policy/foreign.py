"""Quantizers of other libraries, read as quantizers of this one.

TensorFlow Model Optimization describes a quantizer by its class and four
attributes. They are read here by name, so that the library is not needed. The
equivalent is `keras_saq.quantizers.MovingAverage`, which computes the same, but
that it averages minimum and maximum before a range is made symmetric:

| TFMOT                                    | here                            |
|------------------------------------------|---------------------------------|
| `MovingAverageQuantizer`                 | `update="moving_average"`       |
| `LastValueQuantizer`                     | `update="last_value"`           |
| `AllValuesQuantizer`                     | `update="all_values"`           |
| `num_bits`, `symmetric`, `narrow_range`  | the same; `num_bits` 2 to 8     |
| `per_axis=True` (weights)                | `channel_axes=(-1,)`            |
| `NoQuantizer`                            | none                            |
"""

from keras_saq import quantizers
from keras_saq.quantizers import Quantizer
from keras_saq.quantizers import check_bits

# The classes of TFMOT that these four attributes describe completely.
_UPDATES = {
    "LastValueQuantizer": "last_value",
    "MovingAverageQuantizer": "moving_average",
    "AllValuesQuantizer": "all_values",
}
_ATTRIBUTES = ("num_bits", "per_axis", "symmetric", "narrow_range")


def fresh(quantizer):
    """A quantizer with the same settings and no state."""
    return type(quantizer).from_config(quantizer.get_config())


def as_quantizer(quantizer, name, where, is_weight):
    """A new quantizer of this library with the settings of any quantizer.

    Args:
        quantizer: one of this library's, one of TFMOT's, or an object with
            the four attributes of those.
        name: name of the quantizer that is made of one of TFMOT's.
        where: what it quantizes, for messages: `"weight 'kernel' of ..."`.
        is_weight: whether it quantizes a weight.

    Returns:
        A quantizer without state; `None` for TFMOT's `NoQuantizer`.

    Raises:
        ValueError: if the object has no equivalent here.
    """
    if isinstance(quantizer, Quantizer):
        return fresh(quantizer)
    if quantizer is None or _known_class(quantizer) == "NoQuantizer":
        return None
    if _known_class(quantizer) is None and not _is_description(quantizer):
        raise ValueError(
            f"The quantizer of {where} is not known here. Expected a "
            "quantizer of keras_saq, such as `keras_saq.quantizers.LSQ(4)`, "
            f"one of TFMOT's {', '.join(_UPDATES)}, or an object "
            f"with the attributes {', '.join(_ATTRIBUTES)} and no `__call__`. "
            f"Received: {quantizer!r} of type {type(quantizer).__name__}"
        )
    return _translate(quantizer, name, where, is_weight)


def _known_class(quantizer):
    """Name of the TFMOT class whose numerics an object has, or `None`."""
    for base in type(quantizer).__mro__:
        if base.__name__ in (*_UPDATES, "NoQuantizer"):
            return base.__name__
        if "__call__" in vars(base):
            return None  # it computes something of its own
    return None


def _is_description(quantizer):
    return not callable(quantizer) and all(
        hasattr(quantizer, name) for name in _ATTRIBUTES
    )


def _translate(quantizer, name, where, is_weight):
    num_bits, per_axis, symmetric, narrow_range = (
        getattr(quantizer, attribute) for attribute in _ATTRIBUTES
    )
    try:
        check_bits(num_bits)
    except ValueError as error:
        raise ValueError(
            f"The quantizer of {where} cannot be taken over: {error}"
        ) from None
    if is_weight and not symmetric:
        raise ValueError(
            f"The quantizer of {where} is asymmetric, and weights have no "
            "zero point here: integer kernels want them symmetric. Expected "
            f"`symmetric=True`. Received: {_described(quantizer)}"
        )
    if per_axis and not is_weight:
        raise ValueError(
            f"The quantizer of {where} has one range per channel, and integer "
            "kernels read tensors with one scale. Expected `per_axis=False`. "
            f"Received: {_described(quantizer)}"
        )
    return quantizers.get(
        "moving_average",
        num_bits=num_bits,
        narrow_range=narrow_range,
        symmetric=symmetric,
        channel_axes=(-1,) if per_axis else (),
        # A description without numerics is taken for the common one.
        update=_UPDATES.get(
            _known_class(quantizer),
            "last_value" if is_weight else "moving_average",
        ),
        name=name,
    )


def _described(quantizer):
    values = ", ".join(f"{a}={getattr(quantizer, a)!r}" for a in _ATTRIBUTES)
    return f"{type(quantizer).__name__}({values})"
