"""Activation functions other than ReLU and ReLU6.

Between two int8 tensors each is a table of 256 codes. LiteRT has integer
kernels with such tables for tanh and ELU. The others are float kernels between
a DEQUANTIZE and a QUANTIZE, which compute the same table; the exporter looks at
all 256 values and says when one of them is too near to a rounding tie to be
sure (`keras_saq.export.lowering.ties`).
"""

import keras
import numpy as np

from keras_saq.export.pending import Pending
from keras_saq.layers import roles

UNKNOWN = "no kernel is known for it, in integers or in float"
# Of `keras.activations.leaky_relu`.
_SLOPE = 0.2
# Its exponential is zero beside any other score.
_FAR_BELOW = -1e9


def _simple(kind):
    def build(builder, x, path):
        return builder.compute(kind, [x], path)

    return build


def _number(builder, path, value):
    return builder.constant(f"{path}/number", np.full(1, value, np.float32))


def _swish(builder, x, path):
    x = builder.in_float(x, path)
    gate = builder.compute("sigmoid", [x], path)
    return builder.compute("multiply", [x, gate], path)


def _hard_sigmoid(builder, x, path):
    three = _number(builder, path, 3.0)
    x = builder.compute("add", [x, three], path, activation="relu6")
    sixth = _number(builder, path, 1.0 / 6.0)
    return builder.compute("multiply", [x, sixth], path)


def _softplus(builder, x, path):
    """log(1 + exp(-|x|)) + max(x, 0)."""
    x = builder.in_float(x, path)
    minus = _number(builder, path, -1.0)
    small = builder.compute("abs", [x], path)
    small = builder.compute("multiply", [small, minus], path)
    small = builder.compute("exp", [small], path)
    small = builder.compute("add", [small, _number(builder, path, 1.0)], path)
    small = builder.compute("log", [small], path)
    return builder.compute(
        "add", [small, builder.compute("relu", [x], path)], path
    )


def _softsign(builder, x, path):
    x = builder.in_float(x, path)
    size = builder.compute("abs", [x], path)
    size = builder.compute("add", [size, _number(builder, path, 1.0)], path)
    return builder.compute("divide", [x, size], path)


def leaky_relu(slope):
    def build(builder, x, path):
        options = {"alpha": float(slope)}
        return builder.compute("leaky_relu", [x], path, options=options)

    return build


# Name of each function of Keras, with what computes it in float.
_BUILDERS = {
    "elu": _simple("elu"),
    "exponential": _simple("exp"),
    "gelu": _simple("gelu"),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": _simple("hard_swish"),
    "leaky_relu": leaky_relu(_SLOPE),
    "relu": _simple("relu"),
    "sigmoid": _simple("sigmoid"),
    "softmax": _simple("softmax"),
    "softplus": _softplus,
    "softsign": _softsign,
    "swish": _swish,
    "tanh": _simple("tanh"),
}
_INTEGER = {"elu": "integer_elu", "tanh": "integer_tanh"}


def find(operation):
    """`(name, builder of the float computation)` of a layer's function.

    Args:
        operation: a layer that is an activation function, or has one; or an
            operation.

    Returns:
        `None` if it is not one of these.
    """
    name = roles.function_name(operation)
    operation = roles.unwrap(operation)
    if name == "leaky_relu":
        slope = getattr(operation, "negative_slope", _SLOPE)
        return name, leaky_relu(slope)
    if name == "gelu" and getattr(operation, "approximate", False):
        return name, _simple("gelu_approximate")
    if name == "elu" and getattr(operation, "alpha", 1.0) != 1.0:
        return None
    return (name, _BUILDERS[name]) if name in _BUILDERS else None


def obstacle(site):
    """Why a function has no kernel, or `None`."""
    return UNKNOWN if find(site.operation) is None else None


def of_function(function):
    """Builder of a float computation, `None` if there is none."""
    name = roles.FUNCTIONS.get(function)
    if name == "linear":
        return lambda builder, x, path: x
    return _BUILDERS.get(name)


def lower(builder, site, source):
    """The pending result of a layer or operation that is a function."""
    name, compute = find(site.operation)
    return _pending(builder, name, compute, source, site.path)


def mask_of(site):
    """The mask of a softmax: an array, `None`, or a tensor that is computed."""
    others = [*site.call.args[1:], *site.call.kwargs.values()]
    masks = [value for value in others if not isinstance(value, bool)]
    return next((value for value in masks if value is not None), None)


def lower_softmax(builder, site, source):
    """With a constant mask, such as a causal one: a number far below zero."""
    _, compute = find(site.operation)
    mask, path = mask_of(site), site.path

    def masked(builder, x, path):
        if mask is not None:
            values = keras.ops.convert_to_numpy(mask).astype(bool)[0]
            values = np.where(values, 0.0, _FAR_BELOW).astype(np.float32)
            values = builder.constant(f"{path}/mask", values)
            x = builder.compute("add", [x, values], path)
        return compute(builder, x, path)

    return _pending(builder, "softmax", masked, source, path)


def lower_function(builder, site, source):
    """The pending result of the function at the end of a layer."""
    function = roles.function_of(site.operation)
    name, compute = roles.FUNCTIONS[function], of_function(function)
    return _pending(builder, name, compute, source, site.path)


def _pending(builder, name, compute, source, path):
    source = builder.plain(source, path)
    kind = "float" if source.is_float else _INTEGER.get(name, "float")
    return Pending(
        kind,
        [source],
        tuple(source.shape),
        path,
        build=lambda builder, inputs: compute(builder, inputs[0], path),
        what=name,
    )
