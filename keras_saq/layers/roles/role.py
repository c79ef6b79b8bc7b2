"""What a layer or operation is to quantizer, search and file."""

import collections.abc
import dataclasses

NEVER, ALWAYS, AS_INPUTS = "never", "always", "as inputs"


def no_weights(layer):
    return {}


def not_packed(layer, name):
    return False


@dataclasses.dataclass(frozen=True, eq=False)
class Role:
    """One row of the table of operations.

    Attributes:
        family: what is computed. Classes of one family are lowered by one
            rule (`keras_saq.export.lowering.rules`).
        keeps_grid: whether elements are only moved, repeated or left out, so
            that codes and scale are those of the input.
        integer: whether it is quantized with what stands around it, without
            bits of its own: the tensors that it reads and writes are codes.
        accumulates: whether it is a weighted sum in 32 bits, which a batch
            norm or a ReLU behind it can be computed with.
        unsigned: whether no element that it makes is negative: `"always"`,
            `"never"` (that is, not surely), or `"as inputs"` where none of
            its inputs has one.
        weights: function of a layer: dict of the weights that are quantized,
            by (dotted) name, to the axes that have one scale per index.
        part: name of the part that holds its weights, such as the cell of an
            LSTM, which reads its kernel once per call, not once per step.
        packs: function of a layer and the name of a weight: whether LiteRT
            has an exact kernel that reads its codes packed to 4 or 2 bits.
        function: name of the activation function that it is, or `None`.
        activation_is_last: whether what it computes last is
            `layer.activation`.
        reads_indices: whether it reads indices instead of real numbers.
    """

    family: str
    keeps_grid: bool = False
    integer: bool = False
    accumulates: bool = False
    unsigned: str = NEVER
    weights: collections.abc.Callable = no_weights
    part: str | None = None
    packs: collections.abc.Callable = not_packed
    function: str | None = None
    activation_is_last: bool = False
    reads_indices: bool = False


def mover(family):
    """A `Role` that keeps the grid, and the sign with it."""
    return Role(family, keeps_grid=True, integer=True, unsigned=AS_INPUTS)


# What is nothing at inference: dropout, noise, augmentation.
IDENTITY = mover("identity")
