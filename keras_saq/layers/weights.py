"""Which weights of a layer are quantized, and which axes are channels."""

import math
import operator

from keras import layers

_SEPARABLE = {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)}

# Name of each weight, with the axes that have one scale per index. Subclasses
# stand before the class they derive from.
_AXES = (
    (layers.DepthwiseConv1D, {"kernel": (-2, -1)}),
    (layers.DepthwiseConv2D, {"kernel": (-2, -1)}),
    (layers.SeparableConv1D, _SEPARABLE),
    (layers.SeparableConv2D, _SEPARABLE),
    (layers.Conv1DTranspose, {"kernel": (-2,)}),
    (layers.Conv2DTranspose, {"kernel": (-2,)}),
    (layers.Conv3DTranspose, {"kernel": (-2,)}),
    (layers.Conv1D, {"kernel": (-1,)}),
    (layers.Conv2D, {"kernel": (-1,)}),
    (layers.Conv3D, {"kernel": (-1,)}),
    (layers.Dense, {"kernel": (-1,)}),
    # One scale per row: what LiteRT's lookup kernel has.
    (layers.Embedding, {"embeddings": (-2,)}),
)
_INTEGER_KERNELS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.EinsumDense,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
_CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
_RECURRENT = {"kernel": (-1,), "recurrent_kernel": (-1,)}


def weight_axes(layer):
    """Dict of weight name to channel axes, empty for layers without any.

    A name can lead into a part of the layer: `"cell.kernel"` of an LSTM,
    which reads its kernel once per call, not once per time step.
    """
    if isinstance(layer, layers.EinsumDense):
        return {"kernel": _einsum_output_axes(layer.equation)}
    if isinstance(layer, _CELLS):
        return dict(_RECURRENT)
    if isinstance(layer, layers.RNN):
        if isinstance(layer.cell, _CELLS) or _is_conv_lstm(layer):
            return _within("cell", _RECURRENT)
        return {}
    if isinstance(layer, layers.TimeDistributed):
        return _within("layer", weight_axes(layer.layer))
    for layer_class, axes in _AXES:
        if isinstance(layer, layer_class):
            return dict(axes)
    return {}


def is_weighted(layer):
    """Whether a layer has weights that are quantized by default."""
    return bool(getattr(layer, "weight_names", None) or weight_axes(layer))


def has_integer_bias(layer):
    """Whether one kernel multiplies, sums up in integers and adds a bias.

    The bias (that of the layer, or of the batch norm behind it) is then a
    multiple of `input scale * weight scale`.
    """
    if not isinstance(layer, _INTEGER_KERNELS):
        return False
    name, axes = list(weight_axes(layer).items())[-1]
    bias, kernel = getattr(layer, "bias", None), weight(layer, name)
    num_scales = math.prod(kernel.shape[axis] for axis in axes)
    return bias is None or math.prod(bias.shape) == num_scales


def weight(layer, name):
    """The variable of a layer that a (dotted) name stands for."""
    return operator.attrgetter(name)(layer)


def _is_conv_lstm(layer):
    return isinstance(
        layer, (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
    )


def _within(part, axes):
    return {f"{part}.{name}": value for name, value in axes.items()}


def _einsum_output_axes(equation):
    """Axes of an EinsumDense kernel that are axes of the output.

    Of `"abc,cde->abde"`, with the kernel `cde`, these are d and e.
    """
    operands, output = equation.split("->")
    kernel = operands.split(",")[1]
    return tuple(
        i - len(kernel) for i, letter in enumerate(kernel) if letter in output
    )
