"""Activation functions by name, and the roles of layers that are one."""

import dataclasses

import keras

from keras_saq.layers.roles.role import ALWAYS
from keras_saq.layers.roles.role import IDENTITY
from keras_saq.layers.roles.role import NEVER
from keras_saq.layers.roles.role import Role

_functions = keras.activations
FUNCTIONS = {
    None: "linear",
    _functions.elu: "elu",
    _functions.exponential: "exponential",
    _functions.gelu: "gelu",
    _functions.hard_sigmoid: "hard_sigmoid",
    _functions.hard_silu: "hard_swish",
    _functions.leaky_relu: "leaky_relu",
    _functions.linear: "linear",
    _functions.relu: "relu",
    _functions.relu6: "relu6",
    _functions.sigmoid: "sigmoid",
    _functions.silu: "swish",
    _functions.softmax: "softmax",
    _functions.softplus: "softplus",
    _functions.softsign: "softsign",
    _functions.tanh: "tanh",
}
# Functions that never make a negative number.
UNSIGNED = {"hard_sigmoid", "relu", "relu6", "sigmoid", "softmax"}


def function_of(layer):
    """A layer's activation function, without the quantizer before it."""
    function = vars(layer).get("_float_activation")
    return getattr(layer, "activation", None) if function is None else function


def has_logits(layer):
    """Whether a quantizer stands between a layer's sum and its activation."""
    return "_float_activation" in vars(layer)


def of_function(name):
    """The `Role` of an operation that is an activation function."""
    if name in ("relu", "relu6"):
        return Role("relu", integer=True, unsigned=ALWAYS, function=name)
    return Role(
        "softmax" if name == "softmax" else "function",
        integer=name == "leaky_relu",
        unsigned=ALWAYS if name in UNSIGNED else NEVER,
        function=name,
    )


def of_activation_layer(layer):
    """The `Role` of `Activation`, which is that of its function."""
    name = FUNCTIONS.get(function_of(layer))
    if name in ("linear", "relu", "relu6") and not has_logits(layer):
        role = IDENTITY if name == "linear" else of_function(name)
        return dataclasses.replace(role, activation_is_last=True)
    return Role(
        "function",
        unsigned=ALWAYS if name in UNSIGNED else NEVER,
        function=name,
        activation_is_last=True,
    )


def of_relu_layer(layer):
    """The `Role` of `ReLU`, whose bounds and slope can be any."""
    unsigned = NEVER if layer.negative_slope else ALWAYS
    name = None
    if not layer.threshold and layer.max_value is None:
        name = "leaky_relu" if layer.negative_slope else "relu"
    elif not (layer.threshold or layer.negative_slope):
        name = "relu6" if layer.max_value == 6 else None
    if name in ("relu", "relu6"):
        return of_function(name)
    return Role("function", integer=True, unsigned=unsigned, function=name)
