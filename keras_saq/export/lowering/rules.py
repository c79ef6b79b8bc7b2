"""How each family of operations is lowered, and why some have no place.

Which layers and operations are of a family stands in the table of operations,
`keras_saq.layers.roles`. A family without a rule is a float fragment.
"""

import collections.abc
import dataclasses

import keras
from keras import tree

from keras_saq.export.lowering import activations
from keras_saq.export.lowering import arrange
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
from keras_saq.layers import roles


@dataclasses.dataclass(frozen=True)
class Rule:
    """How some layers are lowered.

    Attributes:
        lower: function of a `Builder`, a site and its inputs that returns
            what the site makes: a `Tensor`, a `Pending`, or a list of them.
        obstacle: function of a site that says why it has no kernel, or
            returns `None`.
        fuses: whether it can be given `Pending` kernels, to compute with.
    """

    lower: collections.abc.Callable
    obstacle: collections.abc.Callable = lambda site: None
    fuses: bool = False


def _relu(builder, site, inputs):
    return builder.with_relu(
        inputs[0], roles.activation_of(site.operation), site.path
    )


def _function(builder, site, inputs):
    return activations.lower(builder, site, inputs[0])


def _softmax(builder, site, inputs):
    return activations.lower_softmax(builder, site, inputs[0])


# --- Obstacles


def _weighted_obstacle(site):
    layer = site.operation
    if site.call is not None and site.call.tensors:
        rank = len(site.call.tensors[0].shape)
        if rank != len(site.inputs[0].shape):
            return "it is called on each step of a sequence"
    if roles.activation_of(layer) == "other":
        activation = roles.function_of(layer)
        if activations.of_function(activation) is None:
            return "no integer or float kernel is known for its activation"
    family = roles.family(layer)
    if family == "einsum_dense":
        obstacle = einsum.obstacle(layer, len(site.inputs[0].shape))
        if obstacle is not None:
            return obstacle
    if family == "transposed":
        if layer.output_padding is not None or set(layer.dilation_rate) != {1}:
            return "a transposed convolution with output padding or dilation"
        if len(layer.kernel_size) == 1:
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
    axis = getattr(roles.unwrap(site.operation), "axis", -1)
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


_WEIGHTED = Rule(weighted.lower, _weighted_obstacle)
_ELEMENTWISE = Rule(elementwise.lower, elementwise.obstacle)
_LAYER_NORM = Rule(normalization.lower_layer_norm, _layer_norm_obstacle)
_RECURRENT = Rule(recurrent.lower, recurrent.obstacle)
_LOOKUP = Rule(lookup.lower, lookup.obstacle)

# Family of a `Role`: its rule.
RULES = {
    "add": _ELEMENTWISE,
    "average_of": _ELEMENTWISE,
    "average_pool": Rule(pooling.lower_average),
    "batch_norm": Rule(
        normalization.lower_batch_norm, _batch_norm_obstacle, fuses=True
    ),
    "concatenate": Rule(
        moves.lower_concatenate, moves.concatenate_obstacle, fuses=True
    ),
    "conv": _WEIGHTED,
    "crop": Rule(moves.lower_crop),
    "crop_3d": Rule(moves.lower_crop),
    "dense": _WEIGHTED,
    "depthwise": _WEIGHTED,
    "divide": _ELEMENTWISE,
    "einsum_dense": _WEIGHTED,
    "embedding": _LOOKUP,
    "flip": Rule(moves.lower_flip, moves.flip_obstacle),
    "function": Rule(_function, activations.obstacle),
    "global_average": Rule(pooling.lower_global_average),
    "global_max": Rule(pooling.lower_global_max),
    "gru": _RECURRENT,
    "identity": Rule(moves.lower_passed, fuses=True),
    "item": Rule(moves.lower_item, moves.item_obstacle),
    "layer_norm": _LAYER_NORM,
    "lstm": _RECURRENT,
    "max_pool": Rule(pooling.lower_max),
    "maximum": _ELEMENTWISE,
    "mean": Rule(pooling.lower_mean, pooling.mean_obstacle),
    "minimum": _ELEMENTWISE,
    "move_axis": Rule(arrange.lower_turn, arrange.turn_obstacle),
    "multiply": _ELEMENTWISE,
    "normalization": Rule(elementwise.lower_affine),
    "pad": Rule(moves.lower_pad, moves.pad_obstacle),
    "pad_3d": Rule(moves.lower_pad, moves.pad_obstacle),
    "permute": Rule(moves.lower_permute, moves.permute_obstacle),
    "product": Rule(products.lower, products.obstacle),
    "relu": Rule(_relu, fuses=True),
    "repeat": Rule(arrange.lower_repeat, arrange.repeat_obstacle),
    "repeat_vector": Rule(
        arrange.lower_repeat_vector, arrange.repeat_vector_obstacle
    ),
    "rescaling": Rule(elementwise.lower_affine),
    "reshape": Rule(moves.lower_reshape),
    "reversible_embedding": _LOOKUP,
    "rms_norm": _LAYER_NORM,
    "roll": Rule(arrange.lower_roll, arrange.roll_obstacle),
    "separable": _WEIGHTED,
    "simple_rnn": _RECURRENT,
    "softmax": Rule(_softmax, _softmax_obstacle),
    "split": Rule(arrange.lower_split, arrange.split_obstacle),
    "stack": Rule(arrange.lower_stack, arrange.stack_obstacle, fuses=True),
    "subtract": _ELEMENTWISE,
    "swap_axes": Rule(arrange.lower_turn, arrange.turn_obstacle),
    "tile": Rule(arrange.lower_tile, arrange.tile_obstacle),
    "transposed": _WEIGHTED,
    "unstack": Rule(arrange.lower_unstack, arrange.split_obstacle),
    "upsampling": Rule(moves.lower_upsampling, _upsampling_obstacle),
}
# Somebody's own layer, by what its `call` uses.
OWN = Rule(
    custom.lower(lambda *args: lower_site(*args)),
    custom.obstacle(lambda site: why_float(site)),
)


def rule_for(operation):
    """The rule of a layer or operation, or `None`."""
    family = roles.family(operation)
    if family is None:
        return OWN if custom.matches(operation) else None
    return RULES.get(family)


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


# Families whose kernels take any size.
_ANY_SIZE = {
    "add",
    "average_of",
    "average_pool",
    "batch_norm",
    "concatenate",
    "conv",
    "dense",
    "depthwise",
    "divide",
    "function",
    "global_average",
    "identity",
    "layer_norm",
    "max_pool",
    "maximum",
    "mean",
    "minimum",
    "multiply",
    "normalization",
    "pad",
    "relu",
    "rescaling",
    "rms_norm",
    "separable",
    "softmax",
    "subtract",
}


def _has_open_sizes(site):
    values = [*site.inputs, *site.outputs]
    if roles.family(site.operation) == "einsum_dense":
        # Its `output_shape` leaves open what the input's sizes tell.
        values = site.inputs
    return any(None in value.shape[1:] for value in values)


def reads_mask(site):
    """Whether a layer is given a mask that counts at inference."""
    if roles.is_batch_norm(site.operation) or not isinstance(
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
        return activations.UNKNOWN
    if _has_open_sizes(site) and roles.family(layer) not in _ANY_SIZE:
        return "it needs sizes that are open; `input_shape` can fix them"
    if not _computes_with_reals(site) and rule.lower not in _MOVES_ANYTHING:
        return "it computes with whole numbers or masks"
    if not isinstance(layer, keras.layers.Layer) and not site.inputs:
        return activations.UNKNOWN
    return rule.obstacle(site)
