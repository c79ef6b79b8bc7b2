"""Any quantize config, in the one form that the library works with."""

import keras

from keras_saq.layers import roles
from keras_saq.policy.config import METHODS
from keras_saq.policy.config import QuantizeConfig
from keras_saq.policy.config import is_config
from keras_saq.policy.foreign import as_quantizer


def resolve(config, layer):
    """A plain `QuantizeConfig` that says in fields what `config` says.

    Weights are named by the attribute that holds them, found by the identity
    of the variable. The quantizers are new ones, so that the result belongs
    to this layer alone. `layer` is only read.

    Args:
        config: a `QuantizeConfig`, a subclass with methods of its own, or any
            object with TFMOT's five methods, as
            `tfmot.quantization.keras.QuantizeConfig` has them.
        layer: the built Keras 3 layer that it is meant for.

    Returns:
        A `QuantizeConfig`.

    Raises:
        ValueError: if the config is none, the layer is not built, or the
            config names a weight, an activation or a quantizer that cannot
            be quantized here.

    Example:

    >>> import keras
    >>> from keras_saq.layers import resolve
    >>> from keras_saq.policy import QuantizeConfig
    >>> from keras_saq.quantizers import LSQ
    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 2))
    >>> config = resolve(QuantizeConfig({"kernel": LSQ(4)}), layer)
    >>> config.weights["kernel"].num_bits
    4
    """
    if not is_config(config):
        raise ValueError(
            f"The quantize config of {_named(layer)} is none. Expected a "
            "`keras_saq.QuantizeConfig` or an object with the methods "
            f"{', '.join(METHODS)}. "
            f"Received: {config!r} of type {type(config).__name__}"
        )
    if not layer.built:
        raise ValueError(
            f"{_named(layer)} is not built, so its weights cannot be found. "
            "Call `layer.build(input_shape)`, or the layer, first."
        )
    outputs = _outputs(config, layer)
    inputs, logits = getattr(config, "inputs", None), _logits(config)
    return QuantizeConfig(
        weights=_weights(config, layer),
        inputs=_tensor_quantizer(inputs, "input", layer),
        outputs=_tensor_quantizer(outputs, "output", layer),
        logits=_tensor_quantizer(logits, "logits", layer),
        inner=_tensor_quantizer(getattr(config, "inner", None), "inner", layer),
        bias_grid=getattr(config, "bias_grid", False),
    )


def _weights(config, layer):
    if _answers_from_fields(config, "get_weights_and_quantizers"):
        pairs = []
        for name, quantizer in config.weights.items():
            variable = _attribute(layer, name)
            if not isinstance(variable, keras.Variable):
                raise ValueError(
                    f"{_named(layer)} has no weight '{name}' that could be "
                    f"quantized. Its weights are: {_weight_names(layer)}."
                )
            pairs.append((name, quantizer))
    else:
        names = variable_names(layer)
        pairs = []
        for entry in config.get_weights_and_quantizers(layer) or []:
            variable, quantizer = entry
            if id(variable) not in names:
                raise ValueError(
                    "`get_weights_and_quantizers` returned something that is "
                    f"no weight variable of {_named(layer)}. Expected pairs "
                    "such as `(layer.kernel, quantizer)`. Its weights are: "
                    f"{_weight_names(layer)}. Received: {variable!r}"
                )
            pairs.append((names[id(variable)], quantizer))
    weights = {}
    for name, quantizer in pairs:
        where = f"weight '{name}' of {_named(layer)}"
        if name in weights:
            raise ValueError(f"Two quantizers are given for {where}.")
        quantizer = as_quantizer(
            quantizer,
            name=f"{name.replace('.', '_')}_quantizer",
            where=where,
            is_weight=True,
        )
        if quantizer is not None:
            weights[name] = quantizer
    return weights


def _outputs(config, layer):
    """The quantizer of the output, as it was given."""
    found = []
    if not _answers_from_fields(config, "get_activations_and_quantizers"):
        for pair in config.get_activations_and_quantizers(layer) or []:
            activation, quantizer = pair
            if quantizer is not _logits(config):
                _check_activation(activation, layer)
                found.append(quantizer)
    if _answers_from_fields(config, "get_output_quantizers"):
        found += [] if config.outputs is None else [config.outputs]
    else:
        # TFMOT takes `None` for no quantizer, too.
        found += config.get_output_quantizers(layer) or []
    if len(found) > 1:
        raise ValueError(
            f"The output of {_named(layer)} would be quantized {len(found)} "
            "times: by `get_activations_and_quantizers` (the activation is "
            "the last thing that the layer computes) and by "
            "`get_output_quantizers`, together. Return one quantizer."
        )
    return found[0] if found else None


def _check_activation(activation, layer):
    own = getattr(layer, "activation", None)
    if activation is own and roles.activation_is_last(layer):
        return
    raise ValueError(
        "`get_activations_and_quantizers` returned "
        f"{getattr(activation, '__name__', activation)!r} for {_named(layer)}, "
        "and what becomes of the result of that function is known only for "
        "`layer.activation` of Dense, EinsumDense, convolution and Activation "
        "layers. If it is the layer's output, return the quantizer from "
        "`get_output_quantizers` instead."
    )


def _logits(config):
    return getattr(config, "logits", None)


def _tensor_quantizer(quantizer, what, layer):
    return as_quantizer(
        quantizer,
        name=f"{what}_quantizer",
        where=f"the {what} of {_named(layer)}",
        is_weight=False,
    )


def _answers_from_fields(config, method):
    return getattr(type(config), method, None) is getattr(
        QuantizeConfig, method
    )


def variable_names(layer):
    """Dict from the `id` of each variable to the attribute that holds it.

    A variable in a part of the layer has a dotted name, `"cell.kernel"`.
    """
    names = {}

    def walk(holder, prefix, seen):
        for attribute, value in list(vars(holder).items()):
            if isinstance(value, keras.Variable):
                public = attribute.lstrip("_")
                if _attribute(holder, public) is not value:
                    public = attribute
                names.setdefault(id(value), f"{prefix}{public}")
        for attribute, value in list(vars(holder).items()):
            if isinstance(value, keras.layers.Layer) and id(value) not in seen:
                walk(value, f"{prefix}{attribute}.", seen | {id(value)})

    walk(layer, "", {id(layer)})
    return names


def _attribute(layer, name):
    for part in name.split("."):
        layer = getattr(layer, part, None)
    return layer


def _weight_names(layer):
    return ", ".join(f"'{n}'" for n in variable_names(layer).values()) or "none"


def _named(layer):
    return f"layer '{layer.name}' ({type(layer).__name__})"
