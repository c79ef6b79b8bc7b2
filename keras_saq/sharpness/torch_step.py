"""The train step on torch."""

import keras
import torch

from keras_saq.sharpness.passes import Batch
from keras_saq.sharpness.step import Step
from keras_saq.sharpness.step import keep_finite


def train_step(model, data):
    """One step of `model`; returns the logs."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    with torch.no_grad():
        teacher = model.teach(x)
    batch = Batch(x, y, sample_weight, teacher)
    state = _values(model.non_trainable_variables)
    step = Step(
        model,
        differentiate,
        batch,
        _values(model.trainable_variables),
        state,
        _values(model.metrics_variables),
    )
    outcome = model.strategy.step(step)
    with torch.no_grad():
        _assign(model.non_trainable_variables, keep_finite(outcome, state))
        _assign(model.metrics_variables, outcome.report.metrics)
        _track_loss(model, outcome.report.loss, x)
        skips_itself = isinstance(
            model.optimizer, keras.optimizers.LossScaleOptimizer
        )
        if skips_itself or bool(outcome.is_finite):
            model.optimizer.apply(outcome.gradients, model.trainable_variables)
    return model.compute_metrics(
        x, y, outcome.report.y_pred, sample_weight=sample_weight
    )


def differentiate(function, points):
    """Value, auxiliary and gradients of `function(points)`."""
    points = [p.detach().requires_grad_() for p in points]
    with torch.enable_grad():
        value, auxiliary = function(points)
    gradients = [None] * len(points)
    if value.requires_grad:
        gradients = torch.autograd.grad(value, points, allow_unused=True)
    auxiliary = keras.tree.map_structure(
        lambda t: t.detach() if isinstance(t, torch.Tensor) else t, auxiliary
    )
    return value.detach(), auxiliary, list(gradients)


def _values(variables):
    return [v.value.detach().clone() for v in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _track_loss(model, loss, x):
    """Updates the `loss` that `fit` reports, weighted by the batch size."""
    batch_size = keras.tree.flatten(x)[0].shape[0]
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss, sample_weight=batch_size)
