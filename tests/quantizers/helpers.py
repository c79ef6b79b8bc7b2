"""What the tests of the quantizers share."""

import keras
import numpy as np


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
    else:
        import jax

        argnums = tuple(range(len(arrays)))
        tensors = [jax.numpy.asarray(a) for a in arrays]
        result = jax.grad(loss, argnums=argnums)(*tensors)
    return [np.array(g) for g in result]


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
        return keras.ops.sum(y * dy)

    values = [keras.ops.convert_to_numpy(v) for v in variables]
    dx, *others = gradients(loss, x, *values)
    return dx, {v.name: g for v, g in zip(variables, others)}
