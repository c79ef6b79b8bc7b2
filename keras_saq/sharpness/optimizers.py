"""How the optimizer treats the scales of quantizers.

Scales are no weights. They are trained as logarithms, so weight decay, which
pulls towards zero, would pull every scale towards 1: `SAQModel` excludes them.
And they may want another learning rate than the weights have.
"""

import functools

import keras

from keras_saq.sharpness.participants import ACTIVATION_SCALES
from keras_saq.sharpness.participants import WEIGHT_SCALES
from keras_saq.sharpness.participants import classify
from keras_saq.sharpness.participants import scale_variables


def exclude_scales_from_weight_decay(optimizer, model):
    """Excludes the scales of a model's quantizers from weight decay.

    `SAQModel.compile` calls this; for a quantized model that is trained
    without `SAQModel`, call it yourself before `fit`. What was excluded
    before stays excluded.

    Args:
        optimizer: a Keras optimizer that is not built yet.
        model: a quantized model.

    Returns:
        `optimizer`.

    Raises:
        ValueError: if the optimizer is built already.

    Example:

    >>> import keras, keras_saq
    >>> from keras_saq.sharpness import exclude_scales_from_weight_decay
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> optimizer = keras.optimizers.AdamW(weight_decay=0.01)
    >>> optimizer = exclude_scales_from_weight_decay(optimizer, q)
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = scale_variables(model)
    if not variables:
        return optimizer
    excluded = getattr(inner, "_exclude_from_weight_decay", set())
    pattern = getattr(inner, "_exclude_from_weight_decay_pattern", None)
    if inner.built:
        if all(inner._var_key(v) in excluded for v in variables):
            return optimizer
        raise ValueError(
            "Scales can be excluded from weight decay only before the "
            f"optimizer is built. Received: {inner.name}, which is built "
            "already. Make a new optimizer."
        )
    inner.exclude_from_weight_decay(var_list=variables)
    inner._exclude_from_weight_decay |= excluded
    inner._exclude_from_weight_decay_pattern = pattern
    return optimizer


def check_scale_learning_rate(factor):
    """Returns `factor` as a float or a pair of floats, or raises."""
    pair = isinstance(factor, (tuple, list)) and len(factor) == 2
    factors = factor if pair else (factor,)
    for each in factors:
        if isinstance(each, (tuple, list)) or not 0 <= each < float("inf"):
            raise ValueError(
                "`scale_learning_rate` must be a finite number that is not "
                "negative: the learning rate of scales in units of the "
                "optimizer's; or a pair, for scales of weights and for those "
                "of activations. "
                f"Received: scale_learning_rate={factor!r}"
            )
    return tuple(map(float, factor)) if pair else float(factor)


def scale_learning_rate(optimizer, model, factor):
    """Gives the scales of a model's quantizers a learning rate of their own.

    Args:
        optimizer: a Keras optimizer; it is changed.
        model: a quantized model.
        factor: their learning rate, in units of the optimizer's; a number, or
            a pair for the scales of weights and those of activations.

    Returns:
        `optimizer`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Back to the method of the class, if this is not the first time.
    inner.__dict__.pop("_backend_update_step", None)
    pair = factor if isinstance(factor, tuple) else (factor, factor)
    if pair != (1, 1):
        kinds = (WEIGHT_SCALES, ACTIVATION_SCALES)
        found = classify(model)
        factors = {
            inner._var_key(v): pair[kinds.index(found[id(v)][0])]
            for v in scale_variables(model)
            if id(v) in found
        }
        inner.__dict__["_backend_update_step"] = functools.partial(
            _update_in_groups, inner, inner._backend_update_step, factors
        )
    return optimizer


def _update_in_groups(
    optimizer, update, factors, grads, trainable_variables, learning_rate
):
    groups = {}
    for g, v in zip(grads, trainable_variables):
        factor = factors.get(optimizer._var_key(v), 1.0)
        groups.setdefault(factor, []).append((g, v))
    for factor, group in groups.items():
        rate = learning_rate
        if factor != 1:
            rate = keras.ops.cast(rate, "float32") * factor
        update([g for g, _ in group], [v for _, v in group], rate)
