"""Which layers have no place in an integer file, and why."""

import keras
from keras import layers

from keras_saq.export.program import Tensor
from keras_saq.layers import Quantized
from keras_saq.layers import kinds
from keras_saq.layers.weights import is_weighted

# Activations that are computed in float, each as a declared island.
ISLANDS = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.tanh: "tanh",
}
# What `keras_saq.export.lower` has a kernel for.
_LAYERS = (
    layers.Add,
    layers.AveragePooling2D,
    layers.BatchNormalization,
    layers.Concatenate,
    layers.Conv2D,
    layers.Dense,
    layers.DepthwiseConv2D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.Identity,
    layers.MaxPooling2D,
    layers.Reshape,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
)
_OPERATIONS = ("Add", "Relu", "Relu6")


def refuse_unsupported(graph):
    """Raises one error that names every layer without a kernel."""
    refused = [row for site in graph.sites if (row := _refusal(site))]
    if refused:
        raise ValueError(
            "These layers have no integer kernel in a LiteRT file:\n"
            + "\n".join(refused)
            + "\nReplace them, or leave them out of the exported model."
        )


def check_inputs(site, inputs):
    """Raises where a float tensor would meet an integer kernel."""
    layer = site.operation
    moves_only = kinds.is_transparent(layer) and not isinstance(
        layer,
        (layers.GlobalMaxPooling2D, layers.MaxPooling2D, layers.ZeroPadding2D),
    )
    is_island = getattr(layer, "activation", None) in ISLANDS
    for tensor in inputs:
        if isinstance(tensor, Tensor) and tensor.is_float:
            if not (moves_only or is_island):
                raise ValueError(
                    f"The input of '{site.path}' has no integer scale, "
                    "because no quantized layer makes it. Quantize the model "
                    "with the scheme 'litert' (the presets do), which gives "
                    "every tensor between integer kernels a scale."
                )


def _refusal(site):
    """A line that says why a site cannot be lowered, or `None`."""
    layer = site.operation
    reason = _why_not(layer, site)
    if reason is None:
        return None
    name = getattr(layer, "_float_class", type(layer)).__name__
    return f"  {site.path} ({name}): {reason}"


def _why_not(layer, site):
    if site.closed is not None:
        return f"its `call` cannot be followed: {site.closed}"
    if getattr(layer, "data_format", None) == "channels_first":
        return "its data format is channels_first; LiteRT is channels_last"
    if not _has_kernel(layer):
        return "no integer kernel is known for it"
    if is_weighted(layer):
        return _why_not_weighted(layer)
    if kinds.is_batch_norm(layer):
        if layer.renorm:
            return "renorm=True cannot be folded"
        rank = len(site.inputs[0].shape)
        if layer.axis % rank != rank - 1:
            return f"axis={layer.axis} is not the channel axis"
    if kinds.is_add(layer) and len(site.inputs) != 2:
        return "the kernel adds two tensors; chain Adds of two"
    if isinstance(layer, layers.AveragePooling2D) and layer.padding != "valid":
        return "padding='same' averages fewer elements at the border"
    return _why_not_quantizers(layer)


def _has_kernel(layer):
    name = kinds.operation_name(layer)
    if name:
        return name in _OPERATIONS
    if isinstance(layer, (layers.Activation, layers.ReLU)):
        return (
            kinds.is_relu(layer)
            or kinds.is_transparent(layer)
            or getattr(layer, "activation", None) in ISLANDS
        )
    return isinstance(layer, _LAYERS)


def _why_not_weighted(layer):
    if not isinstance(layer, Quantized) or not layer.weight_names:
        return "it is not quantized"
    if kinds.activation_of(layer) == "other":
        activation = layer.__dict__.get("_float_activation")
        if activation is not None and activation not in ISLANDS:
            return "no integer or float kernel is known for its activation"
    quantizer = layer.weight_quantizer("kernel")
    if quantizer.group_size is not None:
        return (
            "its kernel has a scale per group; the kernel has one per channel"
        )
    if quantizer.code_bits > 8:
        return f"a code of its weights takes {quantizer.code_bits} bits"
    return _why_not_quantizers(layer)


def _why_not_quantizers(layer):
    for quantizer in getattr(layer, "quantizers", ()):
        if quantizer.export_obstacle is not None:
            return quantizer.export_obstacle
    return None
