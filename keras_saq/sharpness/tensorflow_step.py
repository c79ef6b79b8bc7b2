"""The train step on TensorFlow."""

import keras
import tensorflow as tf

from keras_saq.sharpness import checks
from keras_saq.sharpness.passes import Batch
from keras_saq.sharpness.step import Step
from keras_saq.sharpness.step import keep_finite


def train_step(model, data):
    """One step of `model`; returns the logs."""
    checks.check_strategy(tf.distribute.get_strategy())
    checks.check_remat(model)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    batch = Batch(x, y, sample_weight, model.teach(x))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    state = _values(model.non_trainable_variables)
    step = Step(
        model,
        differentiate,
        batch,
        _values(model.trainable_variables),
        state,
        _values(model.metrics_variables),
        all_reduce=_all_reduce if model.sync_perturbation else None,
    )
    outcome = model.strategy.step(step)
    _assign(model.non_trainable_variables, keep_finite(outcome, state), state)
    _assign(model.metrics_variables, outcome.report.metrics)
    _track_loss(model, outcome.report.loss, x)
    _apply(model, outcome)
    return model.compute_metrics(
        x, y, outcome.report.y_pred, sample_weight=sample_weight
    )


def differentiate(function, points):
    """Value, auxiliary and gradients of `function(points)`."""
    points = [tf.convert_to_tensor(p) for p in points]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        value, auxiliary = function(points)
    gradients = [_dense(g) for g in tape.gradient(value, points)]
    return value, auxiliary, gradients


def _dense(gradient):
    """The gradient of an embedding is sparse; its norm is of the dense one."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def _values(variables):
    # Copies: what is assigned to a variable later must not change them.
    return [tf.identity(tf.convert_to_tensor(v.value)) for v in variables]


def _assign(variables, values, old=None):
    old = old or [None] * len(values)
    for variable, value, before in zip(variables, values, old, strict=True):
        if value is not before:
            variable.assign(value)


def _apply(model, outcome):
    """Updates the variables, unless loss or gradients are not finite."""
    optimizer, variables = model.optimizer, model.trainable_variables
    gradients = outcome.gradients
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Looks itself, and lowers its scale.
        optimizer.apply(gradients, variables)
        return
    finite = outcome.is_finite
    if not tf.distribute.has_strategy():
        tf.cond(
            finite,
            lambda: _apply_in_branch(optimizer, gradients, variables),
            lambda: False,
        )
        return
    # No branch can hold the exchange between replicas.
    bad = _all_reduce([tf.cast(tf.logical_not(finite), "float32")])[0]
    gradients = [
        None if g is None else tf.where(bad > 0, tf.zeros_like(g), g)
        for g in gradients
    ]
    optimizer.apply(gradients, variables)


def _apply_in_branch(optimizer, gradients, variables):
    optimizer.apply(gradients, variables)
    return True


def _all_reduce(tensors):
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def _track_loss(model, loss, x):
    """Updates the `loss` that `fit` reports, weighted by the batch size."""
    # `compute_loss` divided by the number of replicas, for the sum over them.
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batch_size = tf.shape(keras.tree.flatten(x)[0])[0]
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(
                loss * tf.cast(num_replicas, loss.dtype),
                sample_weight=batch_size,
            )
