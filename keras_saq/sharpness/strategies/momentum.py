"""Momentum-SAM: the perturbation is where the optimizer is heading."""

import keras

from keras_saq.sharpness.strategies.base import Strategy


@keras.saving.register_keras_serializable("keras_saq")
class Momentum(Strategy):
    """Perturbs along the optimizer's momentum, without a pass of its own.

    Source: Momentum-SAM (Becker et al., arXiv 2401.12033). With the momentum
    buffer v, an average of past gradients:

        eps = -rho * v / ||v||,  gradient = grad L(w + eps)

    Keras's SGD keeps -learning_rate * v, Adam and its kind keep v itself; only
    the direction counts. Of quantized weights, cases 1 and 3 add eps after
    quantization, case 2 before. `adaptive` scaling uses the latent weights.

    Cost: 1. There is no clean pass: the loss and the metrics that `fit`
    reports, and batch statistics, are those at the perturbed weights.

    Example:

    >>> from keras_saq.sharpness.strategies import Momentum
    >>> Momentum().cost
    1.0
    """

    cost = 1.0

    def step(self, step):
        directions = {
            id(v): step.read(lambda m=m: m) * sign
            for v, m, sign in momentum_of(step.model.optimizer)
        }
        eps = step.perturbation_along(directions)
        perturbed = step.perturbed(eps)
        return step.outcome(perturbed.gradients, perturbed, perturbed)


def momentum_of(optimizer):
    """List of `(variable, momentum variable, sign)`; sign * momentum descends.

    Args:
        optimizer: a built Keras optimizer.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for name in ("_momentums", "momentums", "_m"):
        buffers = getattr(inner, name, None)
        if buffers:
            break
    else:
        raise ValueError(
            "The strategy 'momentum' perturbs along the momentum of the "
            f"optimizer, and {type(inner).__name__} has none as it is "
            "configured. Use `keras.optimizers.SGD(..., momentum=0.9)`, "
            "`Adam` or another optimizer with momentum, or another strategy."
        )
    sign = 1.0 if isinstance(inner, keras.optimizers.SGD) else -1.0
    variables = inner._trainable_variables
    return [(v, m, sign) for v, m in zip(variables, buffers) if m is not None]
