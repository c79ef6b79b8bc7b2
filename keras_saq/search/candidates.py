"""Which numbers of bits the search may choose from, by rules."""

import dataclasses

from keras_saq.policy import Rule
from keras_saq.quantizers import check_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """Candidate bits of the layers that match. The first match wins.

    Attributes:
        weight_bits: candidates for the weights, 2 to 8; one number: fixed.
        activation_bits: the same for the tensor that the layer reads; `None`:
            those of the weights.
        path: regular expression for the whole layer path, see
            `keras_saq.Rule`.
        layer_type: name of a layer class, or such a class; `None` for all.

    Example:

    >>> from keras_saq.search import Candidates
    >>> Candidates(path="head", weight_bits=8, activation_bits=(4, 8))
    Candidates(weight_bits=(8,), activation_bits=(4, 8), path='head',
               layer_type=None)
    """

    weight_bits: tuple
    activation_bits: tuple | None = None
    path: str = ".*"
    layer_type: str | type | None = None

    def __post_init__(self):
        weight_bits = _as_bits(self.weight_bits, "weight_bits")
        activation_bits = weight_bits
        if self.activation_bits is not None:
            activation_bits = _as_bits(self.activation_bits, "activation_bits")
        # Also checks path and type.
        rule = Rule(weight_bits=8, path=self.path, layer_type=self.layer_type)
        for field, value in (
            ("weight_bits", weight_bits),
            ("activation_bits", activation_bits),
            ("layer_type", rule.layer_type),
        ):
            object.__setattr__(self, field, value)

    def matches(self, path, layer):
        """Whether a layer is meant."""
        rule = Rule(weight_bits=8, path=self.path, layer_type=self.layer_type)
        return rule.matches(path, layer)


def as_candidates(candidates):
    """A tuple of `Candidates` and `Rule`s, of what a user may give.

    Args:
        candidates: numbers of bits such as `(2, 4, 8)`; or a `Candidates`; or
            a list of `Candidates` and of `keras_saq.Rule`s, which fix what
            becomes of the layers that they match.
    """
    if isinstance(candidates, (Candidates, Rule)):
        candidates = (candidates,)
    candidates = tuple(candidates)
    if candidates and all(
        isinstance(c, (Candidates, Rule)) for c in candidates
    ):
        return candidates
    return (Candidates(weight_bits=_as_bits(candidates, "candidates")),)


def _as_bits(bits, what):
    if isinstance(bits, int):
        bits = (bits,)
    try:
        bits = tuple(sorted({check_bits(b, what) for b in bits}))
    except TypeError:
        bits = ()
    if not bits:
        raise ValueError(
            f"`{what}` must be numbers of bits such as (2, 4, 8), or a list "
            "of `keras_saq.search.Candidates` and `keras_saq.Rule`s. "
            f"Received: {what}={bits!r}"
        )
    return bits
