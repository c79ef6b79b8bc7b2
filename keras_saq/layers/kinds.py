"""What the quantizer needs to know of Keras's own layers and operations.

A layer can be replaced by an operation that does the same: `x + y` in a
Functional model is no `keras.layers.Add`, and means one.
"""

import keras
from keras import layers

# Layers, and names of operations, whose outputs are inputs, moved, repeated
# or left out: they keep the grid.
_TRANSPARENT = (
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.Identity,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_TRANSPARENT_OPERATIONS = {
    "BroadcastTo",
    "Cast",
    "ExpandDims",
    "Flip",
    "GetItem",
    "Identity",
    "MaxPool",
    "Moveaxis",
    "Pad",
    "Repeat",
    "Reshape",
    "Roll",
    "Split",
    "Squeeze",
    "StopGradient",
    "SwapAxes",
    "Swapaxes",
    "Tile",
    "Transpose",
    "Unstack",
}

_ADD = (layers.Add, layers.Subtract)
_ADD_OPERATIONS = {"Add", "Subtract"}
_CONCATENATE_OPERATIONS = {"Concatenate", "Stack"}
_AVERAGE = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
)
_AVERAGE_OPERATIONS = {"AveragePool", "Mean"}
# Element by element, and made of sums, products and comparisons.
_ELEMENTWISE = (
    layers.Average,
    layers.LeakyReLU,
    layers.Maximum,
    layers.Minimum,
    layers.Multiply,
    layers.ReLU,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
)
_ELEMENTWISE_OPERATIONS = {
    "Abs",
    "Clip",
    "LeakyRelu",
    "Maximum",
    "Minimum",
    "Multiply",
    "Negative",
    "Relu",
    "Relu6",
    "Resize",
}
# Products of two activations: attention's QK and AV.
_PRODUCT_OPERATIONS = {"DotProductAttention", "Einsum", "Matmul"}
_UNSIGNED_OPERATIONS = {"Abs", "Relu", "Relu6", "Sigmoid", "HardSigmoid"}
_UNSIGNED_ACTIVATIONS = (
    keras.activations.hard_sigmoid,
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.sigmoid,
    keras.activations.softmax,
)


def operation_name(operation):
    """Class name of a Keras operation, `""` for a layer."""
    operation = getattr(operation, "operation", operation)  # OperationLayer
    if isinstance(operation, layers.Layer):
        return ""
    return type(operation).__name__


def is_batch_norm(layer):
    return isinstance(layer, layers.BatchNormalization)


def is_add(layer):
    return _is(layer, _ADD, _ADD_OPERATIONS)


def is_plain_add(layer):
    """Whether two non-negative inputs make a non-negative sum."""
    return isinstance(layer, layers.Add) or operation_name(layer) == "Add"


def is_concatenate(layer):
    return _is(layer, layers.Concatenate, _CONCATENATE_OPERATIONS)


def is_merge(layer):
    return is_add(layer) or is_concatenate(layer)


def is_average(layer):
    return _is(layer, _AVERAGE, _AVERAGE_OPERATIONS)


def is_product(operation):
    """Whether an operation multiplies two activations, as attention does."""
    return operation_name(operation) in _PRODUCT_OPERATIONS


def is_softmax(layer):
    return isinstance(layer, layers.Softmax)


def is_transparent(layer):
    """Whether the outputs are on the same grid as the input."""
    if isinstance(layer, layers.Activation):
        return activation_of(layer) == "linear"
    return _is(layer, _TRANSPARENT, _TRANSPARENT_OPERATIONS)


def is_elementwise(layer):
    """Whether an integer kernel computes it, element by element."""
    return _is(layer, _ELEMENTWISE, _ELEMENTWISE_OPERATIONS)


def is_relu(layer):
    """Whether the layer is a plain ReLU or ReLU6 and nothing else."""
    return (
        isinstance(layer, (layers.ReLU, layers.Activation))
        or operation_name(layer) in ("Relu", "Relu6")
    ) and activation_of(layer) in ("relu", "relu6")


def is_unsigned(layer):
    """Whether its own function never makes a negative number."""
    if operation_name(layer) in _UNSIGNED_OPERATIONS or is_softmax(layer):
        return True
    if isinstance(layer, layers.ReLU):
        return not layer.negative_slope
    return getattr(layer, "activation", None) in _UNSIGNED_ACTIVATIONS


def activation_of(layer):
    """`"linear"`, `"relu"`, `"relu6"`, or `"other"`.

    For a ReLU or Activation layer and for the activation that is built into
    a layer such as Conv2D.
    """
    name = operation_name(layer)
    if name:
        return {"Relu": "relu", "Relu6": "relu6"}.get(name, "linear")
    if isinstance(layer, layers.ReLU):
        if layer.negative_slope or layer.threshold:
            return "other"
        if layer.max_value is None:
            return "relu"
        return "relu6" if layer.max_value == 6 else "other"
    if isinstance(layer, (layers.RNN, layers.ELU)):
        return "linear"  # its activation is inside, not at its output
    activation = getattr(layer, "activation", None)
    if activation in (None, keras.activations.linear):
        return "linear"
    if activation is keras.activations.relu:
        return "relu"
    if activation is keras.activations.relu6:
        return "relu6"
    return "other"


def _is(layer, classes, operations):
    return isinstance(layer, classes) or operation_name(layer) in operations
