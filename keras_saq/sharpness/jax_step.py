"""SAQ's two-pass train step on JAX: a pure function of the state."""

import jax
import jax.numpy as jnp
import keras

from keras_saq.layers import PerturbationScope
from keras_saq.sharpness.ascent import perturbation


def train_step(model, participants, rho, state, data):
    """One step of `model`: ascend, descend, update; returns logs and state.

    Both passes start from the same non-trainable state (seeds, statistics);
    what the first makes of it is kept, what the second makes is dropped.
    """
    trainable, non_trainable, optimizer_variables, metrics = state
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    quantized = participants.quantized

    def loss_fn(trainable, eps):
        with PerturbationScope({id(v): e for v, e in zip(quantized, eps)}):
            return model.compute_loss_and_updates(
                trainable,
                non_trainable,
                metrics,
                x,
                y,
                sample_weight,
                training=True,
                optimizer_variables=optimizer_variables,
            )

    zeros = [jnp.zeros(v.shape, "float32") for v in quantized]
    grad_fn = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
    (_, aux), (gradients, eps_gradients) = grad_fn(trainable, zeros)
    loss, y_pred, new_non_trainable, metrics_after = aux

    direct = {id(v) for v in participants.direct}
    chosen = [
        g if id(v) in direct else None
        for v, g in zip(model.trainable_variables, gradients)
    ]
    eps = perturbation([*eps_gradients, *chosen], rho)
    perturbed = [
        value if e is None else value + e.astype(value.dtype)
        for value, e in zip(trainable, eps[len(quantized) :])
    ]
    gradients, _ = jax.grad(loss_fn, has_aux=True)(
        perturbed, eps[: len(quantized)]
    )

    trainable, optimizer_variables = model.optimizer.stateless_apply(
        optimizer_variables, gradients, trainable
    )
    logs, metrics = _update_metrics(
        model, metrics_after, loss, x, y, y_pred, sample_weight
    )
    state = (trainable, new_non_trainable, optimizer_variables, metrics)
    return logs, state


def _update_metrics(model, values, loss, x, y, y_pred, sample_weight):
    variables = model.metrics_variables
    with keras.StatelessScope(list(zip(variables, values))) as scope:
        for metric in model.metrics:
            if metric.name == "loss":
                batch_size = jax.tree.leaves(x)[0].shape[0]
                metric.update_state(loss, sample_weight=batch_size)
        logs = model.compute_metrics(x, y, y_pred, sample_weight)
    current = [scope.get_current_value(v) for v in variables]
    return logs, [
        old if new is None else new for old, new in zip(values, current)
    ]
