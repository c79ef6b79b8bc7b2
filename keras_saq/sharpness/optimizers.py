"""How the optimizer treats the scales of quantizers.

Scales are no weights. They are trained as logarithms, so weight decay, which
pulls towards zero, would pull every scale towards 1: `SAQModel` excludes them.
And they may want another learning rate than the weights have.
"""

import functools

import keras

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


def scale_learning_rate(optimizer, model, factor):
    """Gives the scales of a model's quantizers a learning rate of their own.

    Args:
        optimizer: a Keras optimizer; it is changed.
        model: a quantized model.
        factor: their learning rate, in units of the optimizer's.

    Returns:
        `optimizer`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    # Back to the method of the class, if this is not the first time.
    inner.__dict__.pop("_backend_update_step", None)
    if factor != 1:
        keys = {inner._var_key(v) for v in scale_variables(model)}
        inner.__dict__["_backend_update_step"] = functools.partial(
            _update_in_two_groups,
            inner,
            inner._backend_update_step,
            keys,
            factor,
        )
    return optimizer


def _update_in_two_groups(
    optimizer, update, keys, factor, grads, trainable_variables, learning_rate
):
    for is_scale in (False, True):
        group = [
            (g, v)
            for g, v in zip(grads, trainable_variables)
            if (optimizer._var_key(v) in keys) == is_scale
        ]
        if group:
            rate = learning_rate
            if is_scale:
                rate = keras.ops.cast(rate, "float32") * factor
            update([g for g, _ in group], [v for _, v in group], rate)
