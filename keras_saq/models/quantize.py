"""`quantize_model`: from a float model and a policy to a quantized model."""

import warnings

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq import policy as policies
from keras_saq.layers import Quantized
from keras_saq.layers import quantize_layer
from keras_saq.models import calibration as calibrations
from keras_saq.models.graph import Graph
from keras_saq.models.graph import is_graph_model
from keras_saq.models.model import as_quantized_model
from keras_saq.models.plan import Plan


def quantize_model(model, policy="w8a8", calibration=None, strict=False):
    """Returns a copy of a model that trains and computes with few bits.

    Weights get one learned scale per output channel and activations one per
    tensor (LSQ, arXiv 1902.08153). The copy is of the same kind as the model
    (a Functional stays one, a Sequential too), is compiled, fitted, saved and
    loaded like any Keras model, and holds the float ("latent") weights that
    training updates. `model` itself is not changed.

    Args:
        model: a built Functional or Sequential model, nested or not.
        policy: a preset such as `"w4a8"` (weight bits, activation bits), the
            path of a policy's `.json`, or a `keras_saq.QuantizePolicy`.
        calibration: data from which the scales of activations are taken: an
            array of inputs, or an iterable of batches; see
            `keras_saq.calibrate`. Without it the first batch of `fit` serves.
        strict: raise, where a layer has to stay in float, instead of warning.

    Returns:
        The quantized model. It is not compiled.

    Raises:
        ValueError: if the model is not built or holds nothing to quantize, if
            the policy is unknown, if the calibration data does not fit, or,
            with `strict=True`, if a layer stays in float.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(4, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> x = np.random.default_rng(0).random((32, 8, 8, 1), "float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> q.predict(x, verbose=0).shape
    (32, 10)
    """
    policy = policies.get(policy)
    _check_model(model)
    plan = Plan(Graph(model), policy)
    _check_plan(plan, policy, strict)
    quantized = as_quantized_model(_clone(model, plan))
    if calibration is not None:
        calibrations.calibrate(quantized, calibration)
    return quantized


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a `keras.Model`. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights to "
            "quantize. Give it an input shape,\n\n"
            "    model = keras.Sequential([keras.Input((28, 28, 1)), ...])\n\n"
            "or call `model.build(input_shape)` first."
        )
    if not is_graph_model(model):
        raise ValueError(
            "`quantize_model` takes Functional and Sequential models. "
            f"Received: '{model.name}' of type {type(model).__name__}. Build "
            "the same layers as\n\n"
            "    inputs = keras.Input(shape)\n"
            "    model = keras.Model(inputs, outputs_of(inputs))"
        )
    if any(isinstance(layer, Quantized) for layer in model._flatten_layers()):
        raise ValueError(
            f"The model '{model.name}' is quantized already. Call "
            "`quantize_model` on the float model, once per policy."
        )


def _check_plan(plan, policy, strict):
    if not plan.num_weighted:
        raise ValueError(
            "The model has no layer that the policy quantizes. Quantized are "
            "Conv2D, DepthwiseConv2D and Dense layers whose path and type a "
            f"rule matches. The rules are: {list(policy.rules)}. Layers that "
            f"stay in float:\n{_table(plan.floats)}"
        )
    if not plan.floats:
        return
    message = (
        f"{len(plan.floats)} layer(s) stay in float:\n{_table(plan.floats)}"
    )
    if strict:
        raise ValueError(
            f"{message}\nReplace them, or call `quantize_model` with "
            "`strict=False` to keep them in float."
        )
    warnings.warn(message, stacklevel=3)


def _table(floats):
    rows = [("layer", "type", "reason")]
    rows += [(f.path, f.layer_type, f.reason) for f in floats]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(
        f"  {path:{widths[0]}}  {kind:{widths[1]}}  {reason}"
        for path, kind, reason in rows
    )


def _clone(model, plan):
    """A copy of the model with quantized layers, weights included."""
    copies = {}

    def copy_layer(layer):
        if id(layer) not in copies:
            if is_graph_model(layer):
                copy = _clone_graph(layer, copy_layer)
            else:
                copy = _copy_layer(layer, plan.configs.get(id(layer)))
            copies[id(layer)] = (layer, copy)
        return copies[id(layer)][1]

    clone = _clone_graph(model, copy_layer)
    for layer, copy in copies.values():
        if not is_graph_model(layer):
            _copy_variables(layer, copy)
            if isinstance(copy, Quantized):
                copy.initialize_weight_scales()
    _warn_of_dead_kernels([copy for _, copy in copies.values()])
    return clone


def _clone_graph(model, copy_layer):
    inputs = None
    if not isinstance(model, keras.Sequential):
        # Keras would name the new input layers after their tensors.
        inputs = tree.map_structure(_copy_input, model.input)
    compiled, model.compiled = model.compiled, False  # the copy is not
    try:
        return keras.models.clone_model(
            model, input_tensors=inputs, clone_function=copy_layer
        )
    finally:
        model.compiled = compiled


def _copy_input(tensor):
    layer = tensor._keras_history.operation
    return layer.__class__.from_config(layer.get_config()).output


def _copy_layer(layer, config):
    if config is not None and _has_effect(config):
        return quantize_layer(layer, config)
    return layer.__class__.from_config(layer.get_config())


def _has_effect(config):
    return bool(
        config.weights
        or config.inputs
        or config.outputs
        or config.logits
        or config.bias_grid
    )


def _copy_variables(layer, copy):
    own = copy.variables
    if isinstance(copy, Quantized):
        added = {id(v) for q in copy.quantizers for v in q.variables}
        own = [v for v in own if id(v) not in added]
    for source, target in zip(layer.variables, own, strict=True):
        # By way of NumPy: the two models must not share a buffer, which
        # JAX would hand over to the first train step of one of them.
        target.assign(np.copy(ops.convert_to_numpy(source)))


def _warn_of_dead_kernels(layers):
    """One warning that names every kernel a third of which is zero."""
    rows = []
    for layer in layers:
        if isinstance(layer, Quantized):
            for name, variable, quantizer in layer.quantized_weights():
                weight = ops.convert_to_numpy(variable)
                # A ternary grid keeps about half of a bell curve at zero.
                allowed = 1 / 3 if quantizer.num_bits > 2 else 2 / 3
                share = (quantizer.codes(weight) == 0).mean()
                if share > allowed and (weight != 0).mean() > 1 - allowed:
                    rows.append(f"  {layer.name}.{name}: {share:.0%}")
    if rows:
        warnings.warn(
            "Much of these kernels is rounded to zero; more bits, or a "
            "trained model to start from, keep them alive:\n" + "\n".join(rows),
            stacklevel=4,
        )
