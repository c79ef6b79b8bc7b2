"""`quantize_model`: from a float model and a policy to a quantized model."""

import warnings

import keras
from keras import ops

from keras_saq import policy as policies
from keras_saq.layers import Quantized
from keras_saq.models import calibration as calibrations
from keras_saq.models.annotation import QuantizeAnnotate
from keras_saq.models.copy import quantized_copy
from keras_saq.models.copy import quantized_in_place
from keras_saq.models.copy_check import CopyCheck
from keras_saq.models.model import FORECASTS
from keras_saq.models.model import FloatLayer
from keras_saq.models.nearness import check_nearness
from keras_saq.models.plan import KEEP_FLOAT
from keras_saq.models.plan import Plan
from keras_saq.models.refusals import require_float32
from keras_saq.models.silence import warn_of_silence
from keras_saq.plain_text import printable_lines

# As many layers of one type are listed one by one in a warning.
_LISTED = 3
# So many elements of a weight say how many of its codes are zero.
_MOST_ELEMENTS = 1 << 20


def quantize_model(
    model,
    policy="w8a8",
    calibration=None,
    strict=False,
    inplace=False,
    correct=True,
):
    """Returns a copy of a model that trains and computes with few bits.

    Weights get one learned scale per output channel and activations one per
    tensor (LSQ, arXiv 1902.08153). The copy is of the same kind as the model
    (a Functional stays one, a Sequential too), is compiled, fitted, saved and
    loaded like any Keras model, and holds the float ("latent") weights that
    training updates. `model` itself is not changed.

    Args:
        model: a built Keras model of any kind: Functional, Sequential or
            subclassed, with models and composite layers inside at any depth.
        policy: a preset such as `"w4a8"` (weight bits, activation bits), the
            path of a policy's `.json`, or a `keras_saq.QuantizePolicy`.
        calibration: data from which the scales of activations are taken: an
            array of inputs, or an iterable of batches; see
            `keras_saq.calibrate`. Without it the first batch of `fit` serves.
        strict: raise, where a layer has to stay in float or cannot be
            exported, instead of warning.
        inplace: quantize `model` itself instead of a copy. For models that
            cannot be copied, because a class in it has no `get_config`.
        correct: whether `calibration` also gives batch norms their statistics
            back, and layers without one their mean, which quantization moves.
            That changes moving statistics and biases, also of layers that
            are not trainable, and nothing else. Without `calibration` it does
            nothing.

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
    require_float32(model, inplace)
    plan = Plan(model, policy)
    _check_plan(plan, policy, strict)
    inputs = None
    if calibration is not None:
        inputs = calibrations.first_samples(model, calibration)
    check = CopyCheck(model, inputs)
    if inplace:
        quantized = quantized_in_place(model, plan)
    else:
        quantized = quantized_copy(model, plan)
    quantized.float_layers = plan.floats
    check.require_equal(quantized)
    _warn_of_dead_kernels(quantized)
    if inputs is not None:
        moved = calibrations.take_scales(quantized, inputs, correct)
        check_nearness(quantized, inputs, moved)
    warn_of_silence(calibrations.quantized_layers(quantized))
    _tell_of_files(quantized, strict)
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
    if any(
        isinstance(layer, QuantizeAnnotate) for layer in model._flatten_layers()
    ):
        raise ValueError(
            f"The model '{model.name}' is annotated. Quantize the layers that "
            "are annotated, and no others, with\n\n"
            "    q = keras_saq.quantize_apply(model)"
        )
    if any(isinstance(layer, Quantized) for layer in model._flatten_layers()):
        raise ValueError(
            f"The model '{model.name}' is quantized already. Call "
            "`quantize_model` on the float model, once per policy."
        )


def _check_plan(plan, policy, strict):
    if not plan.num_weighted:
        raise ValueError(
            "The model has no layer that the policy quantizes: convolution, "
            "dense, embedding and recurrent layers whose path and type a "
            "rule matches, and layers whose rule has a `config`. The rules "
            f"are: {list(policy.rules)}. Layers that stay in float:\n"
            f"{_table(plan.floats)}"
        )
    unused = policy.unused_rules(plan.graph.model)
    if unused:
        warnings.warn(
            "These rules of the policy decide nothing in the model: no layer "
            f"matches, or an earlier rule has taken it: {unused}. The paths "
            "of the layers: `keras_saq.policy.layer_paths(model)`.",
            stacklevel=3,
        )
    floats = [row for row in plan.floats if row.reason != KEEP_FLOAT]
    if not floats:
        return
    message = f"{len(floats)} layer(s) stay in float:\n{_table(floats)}"
    if strict:
        raise ValueError(
            f"{message}\nReplace them, or call `quantize_model` with "
            "`strict=False` to keep them in float."
        )
    warnings.warn(message, stacklevel=3)


def _tell_of_files(model, strict):
    """What an export will say, now instead of after a training."""
    known = {row.path for row in model.float_layers}
    for forecast in FORECASTS.values():
        told = forecast(model)
        if told.refused:
            message = (
                "The model trains, but no LiteRT file can hold these layers:\n"
                + "\n".join(told.refused)
            )
            if strict:
                raise ValueError(message)
            warnings.warn(printable_lines(message), stacklevel=3)
        islands = [
            FloatLayer(*row) for row in told.islands if row[0] not in known
        ]
        if islands and _quantizes_activations(model):
            warnings.warn(
                f"{len(islands)} operation(s) will be float islands in a "
                f"LiteRT file:\n{printable_lines(_table(islands))}",
                stacklevel=3,
            )


def _quantizes_activations(model):
    return any(
        getattr(layer, f"{place}_quantizer", None) is not None
        for layer in calibrations.quantized_layers(model)
        for place in ("input", "output")
    )


def _table(floats):
    """One line per layer, or for many of a type with one reason, for all."""
    groups = {}
    for layer in floats:
        groups.setdefault((layer.layer_type, layer.reason), []).append(layer)
    rows = [("layer", "type", "reason")]
    for (layer_type, reason), layers in groups.items():
        paths = [layer.path for layer in layers]
        if len(paths) > _LISTED:
            paths = [f"{paths[0]} and {len(paths) - 1} more"]
        rows += [(path, layer_type, reason) for path in paths]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(
        f"  {path:{widths[0]}}  {kind:{widths[1]}}  {reason}"
        for path, kind, reason in rows
    )


def _some_rows(weight, quantizer):
    """A large weight, or rows of it that say how much of it is zero."""
    step = weight.size // _MOST_ELEMENTS
    if step < 2 or quantizer.group_size is not None:
        return weight
    if -weight.ndim in quantizer.channel_axes:
        return weight  # a scale per row
    return weight[::step]


def _warn_of_dead_kernels(model):
    """One warning that names every kernel a third of which is zero."""
    rows = []
    for layer in model._flatten_layers():
        if isinstance(layer, Quantized):
            for name, variable, quantizer in layer.quantized_weights():
                weight = _some_rows(ops.convert_to_numpy(variable), quantizer)
                # A ternary grid keeps about half of a bell curve at zero.
                allowed = 1 / 3 if quantizer.num_bits > 2 else 2 / 3
                share = (quantizer.codes(weight) == 0).mean()
                if share > allowed and (weight != 0).mean() > 1 - allowed:
                    rows.append(f"  {layer.name}.{name}: {share:.0%}")
    if rows:
        warnings.warn(
            "Much of these kernels is rounded to zero; more bits, or a "
            "trained model to start from, keep them alive:\n" + "\n".join(rows),
            stacklevel=3,
        )
