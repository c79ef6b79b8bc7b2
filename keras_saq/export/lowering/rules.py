"""Which family lowers which layer, and why some layers have no place.

The first rule that matches a site counts.
"""

import collections.abc
import dataclasses

import keras
from keras import layers
from keras import tree

from keras_saq.export.lowering import activations
from keras_saq.export.lowering import custom
from keras_saq.export.lowering import einsum
from keras_saq.export.lowering import elementwise
from keras_saq.export.lowering import lookup
from keras_saq.export.lowering import moves
from keras_saq.export.lowering import normalization
from keras_saq.export.lowering import pooling
from keras_saq.export.lowering import products
from keras_saq.export.lowering import recurrent
from keras_saq.export.lowering import weighted
from keras_saq.layers import Quantized
from keras_saq.layers import kinds

UNKNOWN = "no kernel is known for it, in integers or in float"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How some layers are lowered.

    Attributes:
        matches: function of a layer or operation.
        lower: function of a `Builder`, a site and its inputs that returns
            what the site makes: a `Tensor`, a `Pending`, or a list of them.
        obstacle: function of a site that says why it has no kernel, or
            returns `None`.
        fuses: whether it can be given `Pending` kernels, to compute with.
    """

    matches: collections.abc.Callable
    lower: collections.abc.Callable
    obstacle: collections.abc.Callable = lambda site: None
    fuses: bool = False


def _classes(*classes):
    return lambda operation: isinstance(operation, classes)


def _operations(*names):
    return lambda operation: kinds.operation_name(operation) in names


def _either(classes, names):
    def matches(operation):
        return isinstance(operation, classes) or (
            kinds.operation_name(operation) in names
        )

    return matches


def _relu(builder, site, inputs):
    return builder.with_relu(
        inputs[0], kinds.activation_of(site.operation), site.path
    )


def _activation(builder, site, inputs):
    return activations.lower(builder, site, inputs[0])


def _softmax(builder, site, inputs):
    return activations.lower_softmax(builder, site, inputs[0])


def _is_passed(operation):
    if isinstance(operation, layers.Activation):
        return kinds.activation_of(operation) == "linear"
    return isinstance(operation, moves.PASSED) or (
        kinds.operation_name(operation) in moves.PASSED_OPERATIONS
    )


def _is_activation(operation):
    is_function = isinstance(
        operation,
        (
            layers.Activation,
            layers.ELU,
            layers.LeakyReLU,
            layers.ReLU,
            layers.Softmax,
        ),
    )
    is_function |= bool(kinds.operation_name(operation))
    return is_function and activations.find(operation) is not None


# --- Obstacles


def _weighted_obstacle(site):
    layer = site.operation
    if site.call is not None and site.call.tensors:
        rank = len(site.call.tensors[0].shape)
        if rank != len(site.inputs[0].shape):
            return "it is called on each step of a sequence"
    if kinds.activation_of(layer) == "other":
        activation = activations.function_of(layer)
        if activations.of_function(activation) is None:
            return "no integer or float kernel is known for its activation"
    if isinstance(layer, layers.EinsumDense):
        obstacle = einsum.obstacle(layer, len(site.inputs[0].shape))
        if obstacle is not None:
            return obstacle
    if isinstance(layer, (layers.Conv1DTranspose, layers.Conv2DTranspose)):
        if layer.output_padding is not None or set(layer.dilation_rate) != {1}:
            return "a transposed convolution with output padding or dilation"
        if isinstance(layer, layers.Conv1DTranspose):
            return "write it as a Conv2DTranspose with an axis of length one"
    if isinstance(layer, Quantized):
        for name in layer.weight_names:
            quantizer = layer.weight_quantizer(name)
            if quantizer.group_size is not None:
                return (
                    "its kernel has a scale per group; the kernel has one "
                    "per channel"
                )
            if quantizer.code_bits > 8:
                bits = quantizer.code_bits
                return f"a code of its weights takes {bits} bits"
    return None


def _batch_norm_obstacle(site):
    layer = site.operation
    if layer.renorm:
        return "renorm=True cannot be folded"
    rank = len(site.inputs[0].shape)
    if layer.axis % rank != rank - 1:
        return f"axis={layer.axis} is not the channel axis"
    return None


def _layer_norm_obstacle(site):
    return normalization.layer_norm_obstacle(
        site.operation, len(site.inputs[0].shape)
    )


def _softmax_obstacle(site):
    mask = activations.mask_of(site)
    if len(site.inputs) > 1 or isinstance(mask, keras.KerasTensor):
        return "its mask is computed; only constant masks have a kernel"
    if mask is not None and mask.shape[0] != 1:
        return "its mask has a batch axis"
    rank = len(site.inputs[0].shape)
    axis = getattr(
        getattr(site.operation, "operation", site.operation), "axis", -1
    )
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    if [a % rank for a in axes] != [rank - 1]:
        return "it is not computed over the last axis"
    return None


def _upsampling_obstacle(site):
    layer = site.operation
    if getattr(layer, "interpolation", "nearest") != "nearest":
        return (
            "XNNPACK interpolates with 11-bit weights; "
            "interpolation='nearest' is exact"
        )
    return None


_IS_SOFTMAX = _either(layers.Softmax, ("Softmax",))

RULES = (
    Rule(_classes(*weighted.LAYERS), weighted.lower, _weighted_obstacle),
    Rule(
        kinds.is_batch_norm,
        normalization.lower_batch_norm,
        _batch_norm_obstacle,
        fuses=True,
    ),
    Rule(kinds.is_relu, _relu, fuses=True),
    Rule(_is_passed, moves.lower_passed, fuses=True),
    Rule(
        lambda operation: elementwise.kind_of(operation) is not None,
        elementwise.lower,
        elementwise.obstacle,
    ),
    Rule(
        kinds.is_concatenate,
        moves.lower_concatenate,
        moves.concatenate_obstacle,
        fuses=True,
    ),
    Rule(
        _classes(*pooling.GLOBAL_AVERAGES),
        pooling.lower_global_average,
    ),
    Rule(_classes(*pooling.AVERAGES), pooling.lower_average),
    Rule(_classes(*pooling.GLOBAL_MAXIMA), pooling.lower_global_max),
    Rule(_classes(*pooling.MAXIMA), pooling.lower_max),
    Rule(
        _either(moves.RESHAPES, moves.RESHAPE_OPERATIONS), moves.lower_reshape
    ),
    Rule(
        _either(layers.Permute, ("Transpose",)),
        moves.lower_permute,
        moves.permute_obstacle,
    ),
    Rule(_either(moves.PADS, ("Pad",)), moves.lower_pad, moves.pad_obstacle),
    Rule(_operations("GetItem"), moves.lower_item, moves.item_obstacle),
    Rule(_operations("Flip"), moves.lower_flip, moves.flip_obstacle),
    Rule(_operations("Mean"), pooling.lower_mean, pooling.mean_obstacle),
    Rule(_classes(*moves.CROPS), moves.lower_crop),
    Rule(
        _classes(*moves.UPSAMPLINGS),
        moves.lower_upsampling,
        _upsampling_obstacle,
    ),
    Rule(kinds.is_product, products.lower, products.obstacle),
    Rule(_IS_SOFTMAX, _softmax, _softmax_obstacle),
    Rule(_is_activation, _activation),
    Rule(
        _classes(*normalization.FLOAT_LAYERS),
        normalization.lower_layer_norm,
        _layer_norm_obstacle,
    ),
    Rule(_classes(*elementwise.AFFINE_LAYERS), elementwise.lower_affine),
    Rule(_classes(layers.Embedding), lookup.lower, lookup.obstacle),
    Rule(_classes(*recurrent.LAYERS), recurrent.lower, recurrent.obstacle),
    Rule(
        custom.matches,
        custom.lower(lambda *args: lower_site(*args)),
        custom.obstacle(lambda site: why_float(site)),
    ),
)


def rule_for(operation):
    """The rule of a layer or operation, or `None`."""
    return next((rule for rule in RULES if rule.matches(operation)), None)


def lower_site(builder, site, inputs):
    """What a site makes, but for the quantizers of its layer."""
    rule = rule_for(site.operation)
    if not rule.fuses:
        inputs = [builder.plain(value, site.path) for value in inputs]
    return rule.lower(builder, site, inputs)


# What also moves indices and masks, and a lookup.
_MOVES_ANYTHING = (moves.lower_reshape, lookup.lower)


def _computes_with_reals(site):
    return all(v.is_real for v in [*site.inputs, *site.outputs])


def reads_mask(site):
    """Whether a layer is given a mask that counts at inference."""
    if kinds.is_batch_norm(site.operation) or not isinstance(
        site.operation, keras.layers.Layer
    ):
        return False
    return any(
        isinstance(t, keras.KerasTensor)
        for name, value in site.call.kwargs.items()
        if name.endswith("mask")
        for t in tree.flatten(value)
    )


def why_float(site):
    """Why a site has no integer kernel here, or `None`."""
    layer = site.operation
    if site.closed is not None:
        return f"its `call` cannot be followed: {site.closed}"
    if reads_mask(site):
        return "it reads a mask that is computed"
    rule = rule_for(layer)
    if rule is None:
        return UNKNOWN
    if not _computes_with_reals(site) and rule.lower not in _MOVES_ANYTHING:
        return "it computes with whole numbers or masks"
    if not isinstance(layer, keras.layers.Layer) and not site.inputs:
        return UNKNOWN
    return rule.obstacle(site)
