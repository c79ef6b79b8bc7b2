"""Sums, differences, products and comparisons of tensors.

Two tensors that are added, subtracted or multiplied have an integer kernel.
The rest is computed in float, between integers: sums of three, maxima and
minima, and constants. IEEE 754 fixes each of these operations, so that they
are exact too.
"""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.export.pending import Pending
from keras_saq.layers import roles

_INTEGER = ("add", "subtract", "multiply")


def obstacle(site):
    """Why a site of one of these kinds has no kernel, or `None`."""
    ranks = {len(value.shape) for value in site.inputs}
    if len(ranks) > 1:
        return "its inputs have different numbers of axes; reshape them first"
    return None


def lower(builder, site, inputs):
    kind, path = roles.family(site.operation), site.path
    operands = _operands(builder, site, inputs)
    if len(inputs) == 1 and kind in ("multiply", "divide"):
        scaled = _scaled(builder, site, kind, operands)
        if scaled is not None:
            return scaled
    if kind in _INTEGER and len(operands) == 2 and len(inputs) == 2:
        return Pending(
            kind, inputs, _shape(site), path, what=_what(kind, inputs)
        )
    first, *others = operands

    def build(builder, _):
        result = first
        repeated = "add" if kind == "average_of" else kind
        for other in others:
            result = builder.compute(repeated, [result, other], path)
        if kind == "average_of":
            share = np.float32(1.0 / len(operands))
            share = builder.constant(f"{path}/share", share.reshape(1))
            result = builder.compute("multiply", [result, share], path)
        return result

    return Pending(
        "float", operands, _shape(site), path, build=build, what=_name(kind)
    )


def _what(kind, inputs):
    """A name for the island that it is where an input is float."""
    return _name(kind) if any(t.is_float for t in inputs) else ""


def _name(kind):
    return f"'{kind.removesuffix('_of')}'"


def _shape(site):
    return tuple(site.outputs[0].shape[1:])


def _operands(builder, site, inputs):
    """Tensors and constants, in the order of the call."""
    remaining = list(inputs)
    operands = []
    for argument in tree.flatten((site.call.args, site.call.kwargs)):
        if isinstance(argument, keras.KerasTensor):
            operands.append(remaining.pop(0))
        elif argument is not None:
            value = ops.convert_to_numpy(argument).astype(np.float32)
            value = _of_a_sample(value, len(_shape(site)))
            operands.append(builder.constant(f"{site.path}/constant", value))
    return operands


def _of_a_sample(value, rank):
    """A constant without the axes of length one before those of a sample."""
    value = np.asarray(value)
    if value.size == 1:
        return value.reshape(1)
    while value.ndim > rank and value.shape[0] == 1:
        value = value[0]
    return value


def _scaled(builder, site, kind, operands):
    """Codes times a number are the same codes on another grid."""
    tensor, factor = operands
    if tensor.is_constant and kind == "multiply":
        tensor, factor = factor, tensor
    if tensor.is_constant or tensor.is_float or factor.data.size != 1:
        return None
    factor = np.float32(factor.data.item())
    if kind == "divide":
        factor = np.float32(1.0) / factor
    if not np.isfinite(factor) or factor <= 0:
        return None
    scale = np.float32(tensor.scale * factor)
    chain = _private_chain(builder, site, tensor)
    if chain is None:
        return _copied(builder, tensor, scale, site.path)
    for op in chain:
        op.output.scale = scale
    weights = chain[-1].weights
    weights.scale = (weights.scale * factor).astype(np.float32)
    return tensor


def _private_chain(builder, site, tensor):
    """The ops from the weighted kernel to the tensor, that nobody else reads.

    The factor is folded into the kernel's weights then, as a batch norm is.
    """
    value = site.inputs[0]
    shared = len(builder.graph.consumers(value)) > 1
    if shared or builder.graph.is_output(value) or value.producer is None:
        return None
    chain, path = [], value.producer.path
    while True:
        op = builder.maker(tensor)
        readers = sum(tensor in other.inputs for other in builder.ops)
        if op is None or op.path != path or readers > len(chain[:1]):
            return None
        chain.append(op)
        if op.weights is not None:
            return chain
        if op.kind not in ("reshape", "requantize", "transpose"):
            return None
        (tensor,) = op.inputs


def _copied(builder, tensor, scale, path):
    """The codes as they are, with another scale: a kernel that copies."""
    pending = builder.identity(tensor, path)
    pending.weight_scale = pending.weight_scale * (scale / tensor.scale)
    output = builder.tensor(path, pending.made, scale, tensor.zero_point)
    output.is_unsigned = tensor.is_unsigned
    output.rows = pending.inputs[0].rows
    builder.append(pending.to_op(output))
    return builder.reshape(output, tensor.shape, path)


def lower_affine(builder, site, inputs):
    """Rescaling and Normalization: a product and a sum with constants."""
    layer, path = site.operation, site.path
    if roles.family(layer) == "rescaling":
        factor, offset = layer.scale, layer.offset
    else:
        mean = ops.convert_to_numpy(layer.mean).astype(np.float32)
        deviation = np.sqrt(ops.convert_to_numpy(layer.variance))
        deviation = np.maximum(deviation, keras.config.epsilon())
        if layer.invert:
            factor, offset = deviation, mean
        else:
            factor, offset = 1.0 / deviation, -mean / deviation

    def build(builder, inputs):
        result = inputs[0]
        for kind, value in (("multiply", factor), ("add", offset)):
            value = np.asarray(value, np.float32)
            value = _of_a_sample(value, len(inputs[0].shape))
            value = builder.constant(f"{path}/{kind}", value)
            result = builder.compute(kind, [result, value], path)
        return result

    what = type(layer).__name__.removeprefix("Quantized")
    return Pending("float", inputs, _shape(site), path, build=build, what=what)
