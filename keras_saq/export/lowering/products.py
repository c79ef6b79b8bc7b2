"""Products of two activations: an einsum or matmul of attention."""

import math

from keras_saq.export.accumulator import check_reach
from keras_saq.export.accumulator import largest_code
from keras_saq.export.pending import Pending
from keras_saq.layers import roles


def letters_of(site):
    """Letters of both inputs and the output, or `None` if they are others."""
    operation = roles.unwrap(site.operation)
    if type(operation).__name__ == "Matmul":
        first, second = (len(value.shape) for value in site.inputs)
        if first != second or first < 3:
            return None
        batch = "abcdefgh"[: first - 2]
        return f"{batch}ik", f"{batch}kj", f"{batch}ij"
    equation = getattr(operation, "subscripts", "").replace(" ", "")
    operands, _, output = equation.partition("->")
    parts = operands.split(",")
    if len(parts) != 2 or not output or "." in equation:
        return None
    return parts[0], parts[1], output


def obstacle(site):
    """Why a product has no kernel, or `None`."""
    if len(site.inputs) != 2:
        return "it multiplies other than two tensors"
    found = letters_of(site)
    if found is None:
        return "it is no product of matrices"
    first, second, output = found
    if not first[0] == second[0] == output[0]:
        return "it moves or sums over the batch axis"
    alone = set(first) ^ set(second)
    if not alone <= set(output) or set(output) - set(first + second):
        return "it sums over an axis of one input alone"
    return None


def lower(builder, site, inputs):
    """A BATCH_MATMUL, with the inputs' axes in the order that it wants."""
    path = site.path
    if len({t.is_float for t in inputs}) > 1:
        inputs = [builder.in_float(t, path) for t in inputs]
    first, second, output = letters_of(site)
    pairs = [(first, inputs[0]), (second, inputs[1])]
    own = [c for c in output if c not in first or c not in second]
    # The second operand needs codes that fit around the zero point 0; of two
    # that do, take them in the order of the output's axes.
    pairs.sort(key=lambda pair: bool(own) and own[-1] in pair[0])
    if not _fits(pairs[1][1]):
        pairs.reverse()
    if not all(t.is_float for t in inputs) and not _fits(pairs[1][1]):
        pairs = [(names, builder.in_float(t, path)) for names, t in pairs]
    (first, a), (second, b) = pairs
    batch = [c for c in first if c in second and c in output]
    summed = [c for c in first if c in second and c not in output]
    rows = [c for c in first if c not in second]
    columns = [c for c in second if c not in first]
    sizes = dict(zip(first[1:], a.shape)) | dict(zip(second[1:], b.shape))
    a = _matrix(builder, a, first, (batch, rows, summed), sizes, path)
    b = _matrix(builder, b, second, (batch, columns, summed), sizes, path)
    if not b.is_float:
        b = builder.with_zero_point(b, 0, path)
        depth = math.prod(sizes[c] for c in summed)
        check_reach(
            depth * largest_code(a) * largest_code(b),
            path,
            f"{depth:,} products per output",
            "Split the product",
        )
    natural = [*batch, *rows, *columns]

    def moves(builder, tensor):
        shape = [sizes[c] for c in natural[1:]]
        tensor = builder.reshape(tensor, shape, path)
        axes = [natural.index(c) for c in output]
        return builder.transpose(tensor, axes, path)

    return Pending(
        "batch_matmul",
        [a, b],
        tuple(sizes[c] for c in output[1:]),
        path,
        made=(*a.shape[:-1], b.shape[-2]),
        moves=moves,
        what="a product" if a.is_float else "",
    )


def _fits(tensor):
    """Whether its codes are int8 with the zero point 0."""
    return tensor.is_float or not tensor.is_unsigned or _is_narrow(tensor)


def _is_narrow(tensor):
    # The zero point 127 - qmax of an unsigned tensor: at most 7 bits.
    return tensor.zero_point >= 0


def _matrix(builder, tensor, letters, groups, sizes, path):
    """The tensor as matrices: batch axes, then one axis per other group."""
    batch, rows, summed = groups
    order = [letters.index(c) for c in [*batch, *rows, *summed]]
    tensor = builder.transpose(tensor, order, path)
    shape = [sizes[c] for c in batch[1:]]
    shape += [math.prod(sizes[c] for c in group) for group in (rows, summed)]
    return builder.reshape(tensor, shape, path)
