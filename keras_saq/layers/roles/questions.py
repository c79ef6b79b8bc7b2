"""What is asked of a layer or operation, on top of its row in the table."""

import math
import operator

from keras_saq.layers.roles.find import family
from keras_saq.layers.roles.find import find
from keras_saq.layers.roles.functions import FUNCTIONS
from keras_saq.layers.roles.functions import UNSIGNED
from keras_saq.layers.roles.functions import function_of
from keras_saq.layers.roles.functions import has_logits
from keras_saq.layers.roles.role import ALWAYS
from keras_saq.layers.roles.role import NEVER


def is_batch_norm(layer):
    return family(layer) == "batch_norm"


def is_add(layer):
    return family(layer) in ("add", "subtract")


def is_concatenate(layer):
    return family(layer) in ("concatenate", "stack")


def is_product(operation):
    """Whether an operation multiplies two activations, as attention does."""
    return family(operation) == "product"


def is_softmax(layer):
    return family(layer) == "softmax"


def is_separable(layer):
    return family(layer) == "separable"


def is_relu(layer):
    """Whether the layer is a plain ReLU or ReLU6 and nothing else."""
    return family(layer) == "relu"


def is_lookup(layer):
    """Whether it reads rows of a table, and so indices."""
    role = find(layer)
    return role is not None and role.reads_indices


def keeps_grid(layer):
    """Whether the outputs are on the same grid as the input."""
    role = find(layer)
    return role is not None and role.keeps_grid


def is_integer(layer):
    """Whether it is quantized with what stands around it.

    Layers with weights, and products, are where they have bits.
    """
    role = find(layer)
    return role is not None and role.integer


def accumulates(layer):
    """Whether its kernel sums up products in integers, and adds a bias."""
    role = find(layer)
    return role is not None and role.accumulates


def unsigned(layer):
    """`"always"`, `"never"` or `"as inputs"`: see `Role.unsigned`."""
    role = find(layer)
    if role is None:
        return NEVER
    if role.accumulates:
        return ALWAYS if function_name(layer) in UNSIGNED else NEVER
    return role.unsigned


# --- Activation functions


def activation_is_last(layer):
    """Whether quantizing `layer.activation` and the output is the same."""
    role = find(layer)
    return role is not None and role.activation_is_last


def function_name(layer):
    """Name of the function that a layer is, or computes last; or `None`.

    >>> import keras
    >>> from keras_saq.layers import roles
    >>> roles.function_name(keras.layers.Dense(3, activation="silu"))
    'swish'
    """
    role = find(layer)
    if role is None:
        return None
    if role.function is not None or not role.activation_is_last:
        return role.function
    return FUNCTIONS.get(function_of(layer))


def activation_of(layer):
    """`"linear"`, `"relu"`, `"relu6"`, or `"other"`.

    For a layer or operation that is a function, and for the one that is
    built into a layer such as Conv2D.
    """
    role = find(layer)
    if role is None:
        return "linear"
    is_function = role.function is not None or role.family == "function"
    if not (is_function or role.activation_is_last):
        return "linear"
    name = function_name(layer)
    plain = name in ("linear", "relu", "relu6") and not has_logits(layer)
    return name if plain else "other"


# --- Weights


def weight_axes(layer):
    """Dict of weight name to channel axes, empty for layers without any.

    A name can lead into a part of the layer: `"cell.kernel"` of an LSTM.
    """
    role = find(layer)
    if role is None:
        return {}
    if role.part is None:
        return role.weights(layer)
    found = weight_axes(getattr(layer, role.part))
    return {f"{role.part}.{name}": axes for name, axes in found.items()}


def is_weighted(layer):
    """Whether a layer has weights that are quantized by default."""
    return bool(getattr(layer, "weight_names", None) or weight_axes(layer))


def weight(layer, name):
    """The variable of a layer that a (dotted) name stands for."""
    return operator.attrgetter(name)(layer)


def has_integer_bias(layer):
    """Whether one kernel multiplies, sums up in integers and adds a bias.

    The bias (that of the layer, or of the batch norm behind it) is then a
    multiple of `input scale * weight scale`.
    """
    if not accumulates(layer):
        return False
    name, axes = list(weight_axes(layer).items())[-1]
    bias, kernel = getattr(layer, "bias", None), weight(layer, name)
    num_scales = math.prod(kernel.shape[axis] for axis in axes)
    return bias is None or math.prod(bias.shape) == num_scales


def is_packable(layer, name=None):
    """Whether LiteRT has an exact kernel that reads packed 4- or 2-bit codes.

    That is FULLY_CONNECTED (Dense, EinsumDense, and 1x1 convolutions written
    as one) and the lookup in an embedding.

    Args:
        layer: a layer with weights.
        name: which of its weights, where it has several.
    """
    role = find(layer)
    return role is not None and role.packs(layer, name)
