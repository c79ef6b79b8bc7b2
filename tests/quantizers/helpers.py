"""What the tests of the quantizers share."""

import keras
import numpy as np


def numpy(tensor):
    """A float32 array, from a tensor of any backend and dtype."""
    array = keras.ops.convert_to_numpy(tensor)
    return np.array(array, dtype="float32")


def gradients(loss, *arrays):
    """Gradients of a scalar function of arrays, on the current backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(a) for a in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(*tensors)
        result = tape.gradient(value, tensors, unconnected_gradients="zero")
        result = [tf.convert_to_tensor(g) for g in result]
    elif keras.backend.backend() == "torch":
        import torch

        tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
        tensors = [t.detach().clone().requires_grad_() for t in tensors]
        value = loss(*tensors)
        result = torch.autograd.grad(value, tensors, allow_unused=True)
        result = [
            torch.zeros_like(t) if g is None else g
            for t, g in zip(tensors, result)
        ]
    else:
        import jax

        argnums = tuple(range(len(arrays)))
        tensors = [jax.numpy.asarray(a) for a in arrays]
        result = jax.grad(loss, argnums=argnums)(*tensors)
    return [numpy(g) for g in result]


def quantizer_gradients(quantizer, x, dy, training=False):
    """Gradients of sum(dy * quantizer(x)).

    Returns:
        The gradient for `x`, and a dict of those for the trained variables,
        by name.
    """
    variables = quantizer.trainable_variables

    def loss(x, *values):
        pairs = list(zip(variables, values))
        with keras.StatelessScope(pairs):
            y = quantizer(x, training=training)
        return keras.ops.sum(keras.ops.multiply(y, dy))

    values = [keras.ops.convert_to_numpy(v) for v in variables]
    dx, *others = gradients(loss, x, *values)
    return dx, {v.name: g for v, g in zip(variables, others)}


def differences(function, x, step=1e-5):
    """Gradient of a scalar NumPy function, by central differences."""
    x = np.array(x, dtype="float64")
    result = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        result[index] = (ends[0] - ends[1]) / (2 * step)
    return result
