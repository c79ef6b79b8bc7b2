"""How far a perturbation moves, and where to: the ascent of SAM.

For gradients g of the participants, one joint norm, radius rho:

    SAM    eps = rho * g / (||g|| + 1e-12)             (arXiv 2010.01412, eq. 2)
    ASAM   eps = rho * T^2 g / (||T g|| + 1e-12)       (arXiv 2102.11600, eq. 3)
           T = |p| + 0.01 for weights, 1 for everything else
    QASAM  eps = rho * S g / (||T g|| + 1e-12)         (ziplab/SAQ, qasam.py)
           T = |p| + 0.01, S = p^2 for quantized weights, activation scales
           and gamma; T = S = 1 for biases and beta
    layer  eps = rho * T^2 g / (||T g|| + 1e-12)       (ziplab/SAQ, qsam.py)
           T = std(w) over the tensor of a quantized weight, 1 for the rest

"layer" is the unit in which SAQ was released: its quantizer divides each
layer's weights by their standard deviation and perturbs what it makes of them.
rho then does not depend on how large a layer's weights are, and the paper's
values mean here what they mean there: 0.4 (CIFAR, 4 bits), 0.3 (ImageNet).
QASAM's S is p^2, not T^2: that is what was released. p is the value that is
perturbed (in case 3 the quantized weight). Scales are trained as logarithms,
where a step is relative already: T = S = 1 there. To first order this is
T = S^(1/2) = |p| for the scale itself.
"""

from keras import ops

NORM_EPSILON = 1e-12
ETA = 0.01
ADAPTIVE = (False, "layer", "asam", "qasam")


def check_adaptive(adaptive):
    """Returns `adaptive`, or raises if it is none of `ADAPTIVE`."""
    if adaptive is None or adaptive is False:
        return False
    if adaptive not in ADAPTIVE or adaptive is True:
        raise ValueError(
            "`adaptive` must be False, 'layer', 'asam' or 'qasam'. "
            f"Received: adaptive={adaptive!r}"
        )
    return adaptive


def perturbation(gradients, rho, factors=None):
    """`rho * S g / ||T g||` with the norm over all of `gradients`.

    Where the norm is not finite, because the batch or the loss is not, the
    perturbation is zero. A zero gradient has a zero perturbation.

    Args:
        gradients: list of tensors; `None` where there is no gradient.
        rho: radius of the perturbation, a number or scalar tensor.
        factors: list of pairs `(T, S)` of tensors or numbers, one for each
            gradient; `None` for 1 everywhere, and in place of a pair for 1.

    Returns:
        List of float32 tensors of the same shapes, `None` where the gradient
        was.

    Example:

    >>> import numpy as np
    >>> from keras_saq.sharpness.ascent import perturbation
    >>> (eps,) = perturbation([np.float32([3.0, 4.0])], rho=0.5)
    >>> [round(float(e), 4) for e in eps]
    [0.3, 0.4]
    """
    factors = factors or [None] * len(gradients)
    gradients = [
        None if g is None else ops.cast(g, "float32") for g in gradients
    ]
    squares = [
        ops.sum(ops.square(g if f is None else f[0] * g))
        for g, f in zip(gradients, factors)
        if g is not None
    ]
    if not squares:
        return [None] * len(gradients)
    norm = ops.sqrt(sum(squares))
    finite = ops.isfinite(norm)
    factor = rho / (ops.where(finite, norm, 1.0) + NORM_EPSILON)
    eps = []
    for g, f in zip(gradients, factors):
        if g is None:
            eps.append(None)
            continue
        # Not `g * 0`, which is NaN where g is not finite.
        g = ops.where(finite, g, ops.zeros_like(g))
        eps.append((g if f is None else f[1] * g) * factor)
    return eps


def factors(participants, values, latents, adaptive):
    """`(T, S)` of each participant; `None` where both are 1.

    Args:
        participants: list of `Participant`.
        values: list of what is perturbed, one tensor for each.
        latents: list of the variables' values, which are `values` but where
            quantized weights are perturbed.
        adaptive: one of `ADAPTIVE`.

    Returns:
        List, or `None` without adaptive scaling.
    """
    if not adaptive:
        return None
    if adaptive == "layer":
        return [_of_layer(p, w) for p, w in zip(participants, latents)]
    return [_of_values(p, v, adaptive) for p, v in zip(participants, values)]


def _of_layer(participant, latent):
    if not participant.is_quantized:
        return None
    t = ops.std(ops.stop_gradient(ops.cast(latent, "float32")))
    return t, ops.square(t)


def _of_values(participant, value, adaptive):
    if participant.is_offset or participant.is_logarithm:
        return None
    if adaptive == "asam" and participant.kind != "weights":
        return None
    value = ops.stop_gradient(ops.cast(value, "float32"))
    t = ops.abs(value) + ETA
    return t, ops.square(t if adaptive == "asam" else value)
