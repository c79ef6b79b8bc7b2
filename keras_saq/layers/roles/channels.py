"""Which weights of a layer are quantized, and which axes are channels.

What the rows of the table say in their field `weights`, and in `packs`.
"""

import functools
import math

# One scale per output channel, per input channel and multiplier, per row.
OUTPUTS = {"kernel": (-1,)}
TRANSPOSED = {"kernel": (-2,)}
DEPTHWISE = {"kernel": (-2, -1)}
SEPARABLE = {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)}
# What LiteRT's lookup kernel has.
ROWS = {"embeddings": (-2,)}
CELL = {"kernel": (-1,), "recurrent_kernel": (-1,)}
IN_CELL = {f"cell.{name}": axes for name, axes in CELL.items()}


def always(axes):
    """A function of a layer that returns the same axes for each."""
    return lambda layer: dict(axes)


def of_einsum(layer):
    """Axes of an EinsumDense kernel that are axes of the output.

    Of `"abc,cde->abde"`, with the kernel `cde`, these are d and e.
    """
    return dict(kernel=_output_axes(layer.equation))


@functools.cache
def _output_axes(equation):
    operands, output = equation.split("->")
    kernel = operands.split(",")[1]
    return tuple(
        i - len(kernel) for i, letter in enumerate(kernel) if letter in output
    )


def is_packed(layer, name):
    return True


def is_pointwise(layer, name=None):
    """Whether a convolution is a dense kernel on each pixel."""
    return (
        math.prod(layer.kernel_size) == 1
        and math.prod(layer.strides) == 1
        and layer.groups == 1
    )


def is_second_part(layer, name):
    """Whether it is the second kernel of a separable convolution."""
    return name == "pointwise_kernel"
