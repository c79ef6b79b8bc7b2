"""ESAM: perturb some of the weights, descend on some of the samples."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.base import check_share
from keras_saq.sharpness.strategies.base import share_of

_MASKS = 1024


@keras.saving.register_keras_serializable("keras_saq")
class ESAM(Strategy):
    """Efficient sharpness-aware minimization.

    Source: ESAM (Du et al., ICLR 2022, arXiv 2110.03141).

        stochastic weight perturbation: eps = (rho / beta) * m g / ||m g||,
            m ~ Bernoulli(beta), one draw per variable, and the norm of what
            is drawn, as in the released code (dydjw9/Efficient_SAM)
        sharpness-sensitive data selection: B+ = the ceil(gamma |B|) samples
            with the largest l(w + eps; x) - l(w; x);
            gradient = grad L_B+(w + eps)

    Cost: 1 + 1/3 + gamma: a pass, a forward pass to select, and a pass over
    the selected samples. With a compiled step, masking weights saves nothing:
    which gradients are needed would change from step to step.

    The loss of a sample is read off as the derivative of the loss by its
    sample weight, so any Keras loss will do. The masks of step t come from a
    table of 1024 draws, at t mod 1024: nothing random needs to be saved.

    Args:
        beta: share of the variables that are perturbed.
        gamma: share of the samples of a batch that are descended on.
        seed: of the masks.

    Example:

    >>> from keras_saq.sharpness.strategies import ESAM
    >>> round(ESAM(gamma=0.5).cost, 2)
    1.83
    """

    def __init__(self, beta=0.6, gamma=0.5, seed=0):
        self.beta = check_share("beta", beta)
        self.gamma = check_share("gamma", gamma)
        self.seed = int(seed)

    @property
    def cost(self):
        return 4 / 3 + self.gamma

    def masks(self, count):
        """The table of masks: float32 of shape (1024, count)."""
        rng = np.random.default_rng(self.seed)
        return (rng.random((_MASKS, count)) < self.beta).astype("float32")

    def step(self, step):
        step.batch = _with_weights(step.batch)
        clean = step.clean(sample_gradients=True)
        table = ops.convert_to_tensor(self.masks(step.num_participants))
        mask = ops.take(table, step.update_count % _MASKS, axis=0)
        eps = step.perturbation(clean, mask)
        eps = [None if e is None else e / self.beta for e in eps]
        forward = step.perturbed(eps, clean, sample_gradients="only")
        rise = _sample_losses(forward) - _sample_losses(clean)
        count = share_of(step.batch.size, self.gamma)
        if isinstance(count, int):
            chosen = ops.top_k(rise, count)[1]
        else:
            chosen = ops.argsort(-rise)[:count]
        batch = step.batch.map(lambda t: ops.take(t, chosen, axis=0))
        perturbed = step.perturbed(eps, clean, batch)
        return step.outcome(
            perturbed.gradients,
            clean,
            clean,
            step.statistics(perturbed),
            ascent=(clean.loss, forward.loss),
        )

    def get_config(self):
        return {"beta": self.beta, "gamma": self.gamma, "seed": self.seed}


def _with_weights(batch):
    """The batch with a weight of 1 for each sample, if it has none."""
    if any(w is not None for w in keras.tree.flatten(batch.sample_weight)):
        return batch
    ones = ops.ones((batch.size,), "float32")
    return dataclasses.replace(batch, sample_weight=ones)


def _sample_losses(result):
    """A number per sample that rises with its loss, up to a common factor."""
    gradients = [g for g in result.sample_gradients if g is not None]
    if not gradients:
        raise ValueError(
            "The strategy 'esam' finds the loss of each sample as the "
            "derivative of the loss by the sample weights, and the loss of "
            "this model does not depend on them. Let `compute_loss` pass "
            "`sample_weight` on, or use another strategy."
        )
    total = 0.0
    for gradient in gradients:
        axes = list(range(1, len(gradient.shape)))
        gradient = ops.cast(gradient, "float32")
        total = total + (ops.sum(gradient, axis=axes) if axes else gradient)
    return total
