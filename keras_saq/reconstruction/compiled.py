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


def gradients_of(function, points):
    """Gradients of the scalar `function(points)`, a list of tensors.

    Args:
        function: of a list of tensors.
        points: list of tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            value = function(points)
        return tape.gradient(value, points, unconnected_gradients="zero")
    if backend == "jax":
        import jax

        return jax.grad(function)(list(points))
    import torch

    points = [p.detach().requires_grad_(True) for p in points]
    found = torch.autograd.grad(function(points), points, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(points, found)
    ]
