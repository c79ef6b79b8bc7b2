"""What the quantizer needs to know of Keras's own layer classes."""

import keras
from keras import layers

# The weight of a layer and its output-channel axes, one scale per channel.
_WEIGHT_AXES = (
    (layers.Conv2D, {"kernel": (-1,)}),
    (layers.DepthwiseConv2D, {"kernel": (-2, -1)}),
    (layers.Dense, {"kernel": (-1,)}),
)

# Layers whose outputs are inputs, moved or left out: they keep the grid.
_TRANSPARENT = (
    layers.Dropout,
    layers.Flatten,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.MaxPooling2D,
    layers.Reshape,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
)

_MERGE = (layers.Add, layers.Concatenate)
_AVERAGE = (layers.AveragePooling2D, layers.GlobalAveragePooling2D)


def weight_axes(layer):
    """Dict of weight name to output-channel axes, empty for other layers."""
    for layer_class, axes in _WEIGHT_AXES:
        if isinstance(layer, layer_class):
            return axes
    return {}


def is_weighted(layer):
    return bool(weight_axes(layer))


def is_batch_norm(layer):
    return isinstance(layer, layers.BatchNormalization)


def is_merge(layer):
    return isinstance(layer, _MERGE)


def is_add(layer):
    return isinstance(layer, layers.Add)


def is_average(layer):
    return isinstance(layer, _AVERAGE)


def is_transparent(layer):
    """Whether the outputs are on the same grid as the input."""
    if isinstance(layer, layers.Activation):
        return activation_of(layer) == "linear"
    return isinstance(layer, _TRANSPARENT)


def is_relu(layer):
    """Whether the layer is a plain ReLU or ReLU6 and nothing else."""
    return isinstance(layer, (layers.ReLU, layers.Activation)) and (
        activation_of(layer) in ("relu", "relu6")
    )


def activation_of(layer):
    """`"linear"`, `"relu"`, `"relu6"`, or `"other"`.

    For a ReLU or Activation layer and for the activation that is built into
    a layer such as Conv2D.
    """
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope or layer.threshold:
            return "other"
        if layer.max_value is None:
            return "relu"
        return "relu6" if layer.max_value == 6 else "other"
    activation = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear):
        return "linear"
    if activation is keras.activations.relu:
        return "relu"
    if activation is keras.activations.relu6:
        return "relu6"
    return "other"
