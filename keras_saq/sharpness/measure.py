"""Sharpness as numbers: the worst-case rise of the loss, and curvature.

    rise         L(Q(w) + eps) - L(Q(w)),  eps = rho * g / ||g||
                 (SAM, arXiv 2010.01412, its one-step ascent), over all data
    eigenvalue   lambda_max of the Hessian of L at Q(w), by power iteration
                 v <- H v / ||H v||, with H v from central differences of the
                 gradient, (g(d v) - g(-d v)) / 2 d

Differences rather than second derivatives, because the gradient of a
quantizer is a convention (straight-through) that has no derivative of its
own; they see the loss on the scale d, where rounding averages out.
"""

import dataclasses

import numpy as np

from keras_saq.sharpness.participants import DEFAULT
from keras_saq.sharpness.surface import Surface


@dataclasses.dataclass(frozen=True)
class Sharpness:
    """What `measure_sharpness` found.

    Attributes:
        rho: radius of the ascent.
        loss: at the weights.
        rise: by how much the loss is higher at the ascent's end.
        gradient_norm: Euclidean norm of the gradient at the weights.
        eigenvalue: the Hessian's with the largest absolute value, or `None`.
        iterations: how many power iterations were made.
        converged: whether they met the tolerance.
    """

    rho: float
    loss: float
    rise: float
    gradient_norm: float
    eigenvalue: float | None = None
    iterations: int = 0
    converged: bool = False


def measure_sharpness(
    model,
    data,
    rho=0.05,
    steps=1,
    eigenvalue=True,
    perturb=DEFAULT,
    batch_size=128,
    loss=None,
    max_iterations=50,
    tolerance=1e-2,
    seed=0,
):
    """How sharp the minimum is that a model is in.

    Moves all chosen variables, quantized weights after quantization, and
    computes in inference mode over all of `data`. The model is not changed.

    Args:
        model: a compiled Keras model, quantized or float.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, or an iterable
            of such batches.
        rho: radius.
        steps: number of ascent steps, each of rho / steps and along the
            gradient where it starts; 1 is what SAM and SAQ do.
        eigenvalue: whether to compute it; it costs two gradients over the
            data per iteration.
        perturb: which variables to move, as in `SAQModel`.
        batch_size: for arrays.
        loss: a Keras loss, in place of the compiled one.
        max_iterations: of the power iteration.
        tolerance: relative change of the eigenvalue at which to stop.
        seed: of the first vector.

    Returns:
        A `Sharpness`; loss and rise are in the units of the loss.

    Raises:
        ValueError: if `rho` or `steps` is out of its range, if the model has
            no loss, no scales yet or nothing to move, or if there is no data.

    Example:

    >>> import keras, numpy as np
    >>> from keras_saq.sharpness import measure_sharpness
    >>> inputs = keras.Input((2,))
    >>> layer = keras.layers.Dense(
    ...     1, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Model(inputs, layer(inputs))
    >>> x = np.float32([[3, 0], [0, 0]])
    >>> result = measure_sharpness(
    ...     model, (x, np.zeros((2, 1))), rho=0.1, loss="mse")
    >>> round(result.loss, 3), round(result.rise, 3)
    (4.5, 0.945)
    >>> round(result.eigenvalue, 2)  # of x^T x
    9.0
    """
    rho = float(rho)
    if not 0 < rho < np.inf:
        raise ValueError(
            f"`rho` must be a finite number above 0. Received: rho={rho}"
        )
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
    surface = Surface(model, data, perturb, batch_size, loss)
    before, gradient = surface.gradient()
    length = norm(gradient)
    point, direction = surface.zero, gradient
    for i in range(steps):
        if i:
            _, direction = surface.gradient(point)
        size = norm(direction)
        if size == 0:
            break
        factor = rho / steps / size
        point = [p + factor * d for p, d in zip(point, direction)]
    rise = surface.loss(point) - before
    result = Sharpness(rho, before, rise, length)
    if not eigenvalue:
        return result
    value, iterations, converged = top_eigenvalue(
        surface, rho / 10, max_iterations, tolerance, seed
    )
    return dataclasses.replace(
        result, eigenvalue=value, iterations=iterations, converged=converged
    )


def top_eigenvalue(surface, difference, max_iterations, tolerance, seed):
    """The Hessian's eigenvalue of largest absolute value.

    Args:
        surface: a `Surface`.
        difference: length d of the displacements.
        max_iterations: bound on the iterations.
        tolerance: relative change at which to stop.
        seed: of the first vector.

    Returns:
        `(eigenvalue, iterations, converged)`.
    """
    rng = np.random.default_rng(seed)
    vector = [rng.normal(size=z.shape).astype("float32") for z in surface.zero]
    vector = scaled(vector, 1 / norm(vector))
    value, converged, count = 0.0, False, 0
    while count < max_iterations and not converged:
        count += 1
        _, ahead = surface.gradient(scaled(vector, difference))
        _, behind = surface.gradient(scaled(vector, -difference))
        product = [(a - b) / (2 * difference) for a, b in zip(ahead, behind)]
        new = sum(float(np.vdot(v, p)) for v, p in zip(vector, product))
        size = norm(product)
        converged = abs(new - value) <= tolerance * abs(new)
        value = new
        if size == 0:
            converged = True
            break
        vector = scaled(product, 1 / size)
    return value, count, converged


def norm(arrays):
    """Euclidean norm over a list of arrays."""
    return float(np.sqrt(sum(float(np.sum(np.square(a))) for a in arrays)))


def scaled(arrays, factor):
    """Each array times a number, in float32."""
    return [np.float32(factor) * a for a in arrays]
