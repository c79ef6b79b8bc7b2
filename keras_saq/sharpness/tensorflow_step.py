"""SAQ's two-pass train step on TensorFlow."""

import keras
import tensorflow as tf

from keras_saq.layers import PerturbationScope
from keras_saq.sharpness.ascent import perturbation


def train_step(model, participants, rho, data):
    """One step of `model`: ascend, descend, update; returns the logs.

    The first pass is a plain forward pass: batch statistics, seeds, metrics
    and the reported loss are its. The second computes from the state before
    the first (the same dropout masks), and leaves no trace but its gradient.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    variables = model.trainable_variables
    quantized, direct = participants.quantized, participants.direct

    # Copies: the first pass assigns to these.
    state = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]
    zeros = [tf.zeros(v.shape, "float32") for v in quantized]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        with PerturbationScope(_by_id(quantized, zeros)):
            y_pred, loss = _forward(model, x, y, sample_weight)
        _track_loss(model, loss, x)
        scaled_loss = model.optimizer.scale_loss(loss)
    sources = zeros + [v.value for v in direct]
    gradients = tape.gradient(scaled_loss, sources)
    eps = perturbation([_dense(g) for g in gradients], rho)
    quantized_eps = eps[: len(quantized)]
    direct_eps = _by_id(direct, eps[len(quantized) :])

    second = PerturbationScope(_by_id(quantized, quantized_eps, zeros))
    with tf.GradientTape() as tape:
        tape.watch([e for e in quantized_eps if e is not None])
        # Every variable is mapped: Keras reads regularised ones from here.
        for variable in variables:
            value = tf.convert_to_tensor(variable.value)
            if direct_eps.get(id(variable)) is not None:
                value += tf.cast(direct_eps[id(variable)], value.dtype)
            state.append((variable, value))
        with keras.StatelessScope(state, collect_losses=True), second:
            _, loss = _forward(model, x, y, sample_weight)
            scaled_loss = model.optimizer.scale_loss(loss)
    gradients, eps_gradients = tape.gradient(
        scaled_loss, ([v.value for v in variables], quantized_eps)
    )
    _check_second_pass(quantized, quantized_eps, eps_gradients)
    model.optimizer.apply_gradients(zip(gradients, variables))
    return model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


def _forward(model, x, y, sample_weight):
    y_pred = model(x, training=True)
    loss = model.compute_loss(
        x=x,
        y=y,
        y_pred=y_pred,
        sample_weight=sample_weight,
        training=True,
    )
    return y_pred, loss


def _check_second_pass(quantized, eps, gradients):
    """Raises if a perturbation did not reach the loss; when traced."""
    for variable, e, gradient in zip(quantized, eps, gradients):
        if e is not None and gradient is None:
            raise RuntimeError(
                f"The perturbation of the weight '{variable.path}' did not "
                "reach the second pass of the SAQ step: a function inside "
                "the layer's `call` was traced in the first pass and run "
                "again from a cache, with the weights of then. Remove its "
                "`tf.function` decorator."
            )


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


def _by_id(variables, tensors, default=None):
    """Dict from `id(variable)` to its tensor, or to that of `default`."""
    default = default or [None] * len(tensors)
    return {
        id(v): d if t is None else t
        for v, t, d in zip(variables, tensors, default)
    }


def _dense(gradient):
    """The gradient of an embedding is sparse; its norm is of the dense one."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient
