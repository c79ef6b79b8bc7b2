"""Compiling a function of tensors, and differentiating one."""

import keras


def compiled(function):
    """The function, compiled where the backend does that."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def value_and_gradients(function, points):
    """The value of `function(points)`, what it tells, and gradients.

    Args:
        function: of a list of tensors; returns a scalar and something else.
        points: list of tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            value, told = function(points)
        gradients = tape.gradient(value, points, unconnected_gradients="zero")
        return value, told, gradients
    if backend == "jax":
        import jax

        (value, told), gradients = jax.value_and_grad(function, has_aux=True)(
            list(points)
        )
        return value, told, gradients
    import torch

    points = [p.detach().requires_grad_(True) for p in points]
    value, told = function(points)
    gradients = torch.autograd.grad(value, points, allow_unused=True)
    gradients = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(points, gradients)
    ]
    return value.detach(), told.detach(), gradients
