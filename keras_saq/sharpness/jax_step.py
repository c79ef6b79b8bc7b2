"""The train step on JAX: a pure function of the state."""

import jax
import jax.numpy as jnp
import keras

from keras_saq.sharpness import checks
from keras_saq.sharpness.passes import Batch
from keras_saq.sharpness.step import Step
from keras_saq.sharpness.step import keep_finite


def train_step(model, state, data):
    """One step of `model`; returns logs and the new state."""
    checks.check_sync(model.sync_perturbation, checks.jax_device_count())
    trainable, non_trainable, optimizer_variables, metrics = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    batch = Batch(x, y, sample_weight, model.teach(x))
    step = Step(
        model,
        differentiate,
        batch,
        trainable,
        non_trainable,
        metrics,
        optimizer_variables,
    )
    outcome = model.strategy.step(step)
    new_trainable, new_optimizer = model.optimizer.stateless_apply(
        optimizer_variables, outcome.gradients, trainable
    )
    if not _skips_itself(model.optimizer):
        ok = outcome.is_finite
        new_trainable, new_optimizer = _select(
            ok, (new_trainable, new_optimizer), (trainable, optimizer_variables)
        )
    logs, metrics = _update_metrics(model, outcome.report, x, y, sample_weight)
    non_trainable = keep_finite(outcome, non_trainable)
    return logs, (new_trainable, non_trainable, new_optimizer, metrics)


def differentiate(function, points):
    """Value, auxiliary and gradients of `function(points)`."""
    (value, auxiliary), gradients = jax.value_and_grad(function, has_aux=True)(
        list(points)
    )
    return value, auxiliary, gradients


def _skips_itself(optimizer):
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _select(ok, new, old):
    return tuple(
        [jnp.where(ok, a, b) for a, b in zip(first, second, strict=True)]
        for first, second in zip(new, old)
    )


def _update_metrics(model, report, x, y, sample_weight):
    variables = model.metrics_variables
    mapping = list(zip(variables, report.metrics))
    with keras.StatelessScope(mapping) as scope:
        for metric in model.metrics:
            if metric.name == "loss":
                batch_size = jax.tree.leaves(x)[0].shape[0]
                metric.update_state(report.loss, sample_weight=batch_size)
        logs = model.compute_metrics(x, y, report.y_pred, sample_weight)
    return logs, [scope.get_current_value(v) for v in variables]
