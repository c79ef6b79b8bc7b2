"""Sites as data, on their way to another process."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor stood among the arguments of a call."""

    number: int
    shape: tuple
    dtype: str


@dataclasses.dataclass
class ParcelledSite:
    """One call of one operation.

    Attributes:
        config: the operation, as Keras serialises it.
        build: a layer's build configuration, or `None`.
        weights: values of a layer's variables.
        args: positional arguments, with a `Place` for each tensor.
        kwargs: keyword arguments, the same.
        masks: list of `(tensor, mask)`, both a `Place`.
        inputs: numbers of the values that it reads.
        outputs: `(number, shape, dtype)` of the values that it makes.
    """

    config: dict
    build: dict | None
    weights: list
    args: tuple
    kwargs: dict
    masks: list
    inputs: list
    outputs: list


@dataclasses.dataclass
class Parcel:
    """Sites, and `(number, shape, dtype)` of what goes in and comes out."""

    sites: list
    inputs: list
    outputs: list
