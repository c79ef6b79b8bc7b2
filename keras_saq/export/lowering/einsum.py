"""EinsumDense as a dense kernel on reshaped tensors."""

import math

import numpy as np
from keras import ops

from keras_saq.export.lowering.dense import dense_of
from keras_saq.export.lowering.dense import fused_activation
from keras_saq.export.lowering.dense import kernel_of
from keras_saq.layers import roles


def letters_of(equation, rank):
    """Letters of input, kernel and output, `...` written out.

    >>> from keras_saq.export.lowering.einsum import letters_of
    >>> letters_of("...x,xy->...y", 3)
    ('ABx', 'xy', 'ABy')
    """
    operands, output = equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    letters = "ABCDEFGH"[: rank - len(source.replace("...", ""))]
    return (
        source.replace("...", letters),
        kernel,
        output.replace("...", letters),
    )


def obstacle(layer, rank):
    """Why an EinsumDense is no dense kernel, or `None`."""
    source, kernel, output = letters_of(layer.equation, rank)
    if source[0] != output[0]:
        return f"its equation {layer.equation!r} moves the batch axis"
    if any(letter in source and letter in output for letter in kernel):
        return f"its equation {layer.equation!r} has a kernel per element"
    if any(letter not in kernel + output for letter in source):
        return f"its equation {layer.equation!r} sums over its input"
    if roles.activation_of(layer) == "other" and output != _natural(
        source, kernel, output
    ):
        return "its activation comes between kernel and transposition"
    return None


def _natural(source, kernel, output):
    """Order of axes in which the dense kernel makes its output."""
    kept = "".join(c for c in source if c not in kernel)
    return kept + "".join(c for c in kernel if c in output)


def lower(builder, site, source):
    """A dense kernel on reshaped, where needed transposed tensors."""
    layer = site.operation
    rank = len(source.shape) + 1
    letters, kernel, output = letters_of(layer.equation, rank)
    kept = [c for c in letters if c not in kernel]
    summed = [c for c in kernel if c in letters]
    made = [c for c in kernel if c in output]
    codes, scale, bits = kernel_of(layer, "kernel")
    sizes = dict(zip(letters[1:], source.shape))
    sizes |= dict(zip(kernel, codes.shape))
    order = [letters.index(c) for c in [*kept, *summed]]
    source = builder.transpose(source, order, site.path)
    lead = [sizes[c] for c in kept[1:]]
    depth = math.prod(sizes[c] for c in summed)
    source = builder.reshape(source, (*lead, depth), site.path)
    codes = codes.transpose([kernel.index(c) for c in [*made, *summed]])
    codes = codes.reshape(-1, depth)
    natural = _natural(letters, kernel, output)

    def moves(builder, tensor):
        shape = [*lead, *(sizes[c] for c in made)]
        tensor = builder.reshape(tensor, shape, site.path)
        axes = [natural.index(c) for c in output]
        return builder.transpose(tensor, axes, site.path)

    return dense_of(
        builder,
        site,
        source,
        codes,
        scale,
        bits,
        _einsum_bias(layer, output, made, sizes),
        activation=fused_activation(layer),
        shape=tuple(sizes[c] for c in output[1:]),
        moves=moves,
    )


def _einsum_bias(layer, output, made, sizes):
    """The bias along the axes that the kernel makes, in its order."""
    if layer.bias is None:
        return None
    bias = ops.convert_to_numpy(layer.bias).astype(np.float32)
    # Its axes are the last ones of the output, of length 1 where shared.
    own = output[len(output) - bias.ndim :]
    index = [own.index(c) for c in made if c in own]
    others = [i for i in range(bias.ndim) if i not in index]
    bias = bias.transpose([*others, *index])[(0,) * len(others)]
    missing = [i for i, c in enumerate(made) if c not in own]
    bias = np.expand_dims(bias, missing)
    return np.broadcast_to(bias, [sizes[c] for c in made]).copy()
