"""The ascent on a part of the batch."""

import keras

from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.base import check_share
from keras_saq.sharpness.strategies.base import share_of


@keras.saving.register_keras_serializable("keras_saq")
class HalfBatch(Strategy):
    """Finds the perturbation with the first samples of each batch.

    With B' = the first ceil(fraction * |B|) samples of the batch B:

        eps = rho * g / ||g||,  g = grad L_B'(w);  gradient = grad L_B(w + eps)

    Cost: 1 + fraction. A reconstruction: that SAM's ascent does well with
    few samples is known from m-sharpness (arXiv 2010.01412, section 4.1).

    The pass over the whole batch is the perturbed one, so the loss and the
    metrics that `fit` reports are those at the perturbed weights; batch
    statistics are those of the first pass, over the part.

    Args:
        fraction: which share of the batch the ascent sees.

    Example:

    >>> from keras_saq.sharpness.strategies import HalfBatch
    >>> HalfBatch(fraction=0.25).cost
    1.25
    """

    def __init__(self, fraction=0.5):
        self.fraction = check_share("fraction", fraction)

    @property
    def cost(self):
        return 1 + self.fraction

    def step(self, step):
        count = share_of(step.batch.size, self.fraction)
        clean = step.clean(step.batch.map(lambda t: t[:count]))
        eps = step.perturbation(clean)
        perturbed = step.perturbed(eps, clean)
        return step.outcome(
            perturbed.gradients,
            perturbed,
            clean,
            step.statistics(perturbed),
            ascent=(clean.loss, perturbed.loss),
        )

    def get_config(self):
        return {"fraction": self.fraction}
