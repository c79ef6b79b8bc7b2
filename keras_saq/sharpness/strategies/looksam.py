"""LookSAM: reuse the part of SAM's gradient that changes slowly."""

import keras
from keras import ops

from keras_saq.sharpness.ascent import NORM_EPSILON
from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.base import check_period
from keras_saq.sharpness.strategies.branches import branch
from keras_saq.sharpness.strategies.branches import dot
from keras_saq.sharpness.strategies.branches import norm


@keras.saving.register_keras_serializable("keras_saq")
class LookSAM(Strategy):
    """Perturbs every `k`-th step and reuses its direction in between.

    Source: LookSAM (Liu et al., CVPR 2022, arXiv 2203.02714). With the plain
    gradient g, SAM's gradient g_s and the optimizer's update count t:

        t mod k == 0:  g_s = grad L(w + eps)
                       g_v = g_s - (g_s . g / ||g||) g / ||g||
                       gradient = g_s
        elsewhere:     gradient = g + alpha * (||g|| / ||g_v||) * g_v

    The gradients are those of the latent weights; eps is the case's. g_v is
    kept in one variable per trainable variable, which is saved with the
    model, but not in its weights' file of `model.model`.

    Cost: 1 + 1/k.

    Args:
        k: number of steps from one perturbed step to the next.
        alpha: weight of the reused component.
    """

    def __init__(self, k=5, alpha=0.7):
        self.k = check_period(k)
        if isinstance(alpha, bool) or not 0 <= alpha < float("inf"):
            raise ValueError(
                "`alpha` must be a finite number that is not negative. "
                f"Received: alpha={alpha!r}"
            )
        self.alpha = float(alpha)
        self._kept = {}

    @property
    def cost(self):
        return 1 + 1 / self.k

    def build(self, training_state, variables):
        self._kept = {
            id(v): training_state.slot(v, f"looksam_{i}")
            for i, v in enumerate(variables)
        }

    def step(self, step):
        clean = step.clean()
        eps = step.perturbation(clean)
        plain = clean.gradients
        kept = [self._kept[id(v)] for v in step.model.trainable_variables]
        values = dict(
            zip(map(id, step.model.non_trainable_variables), step.state)
        )
        direction = [values[id(v)] for v in kept]
        plain_norm = norm(plain)
        is_full = ops.equal(step.update_count % self.k, 0)

        def full():
            perturbed = step.perturbed(eps, clean)
            gradients = perturbed.gradients
            along = dot(gradients, plain) / (
                ops.square(plain_norm) + NORM_EPSILON
            )
            new = [
                d
                if g is None or p is None
                else ops.cast(g - along * p, d.dtype)
                for g, p, d in zip(gradients, plain, direction)
            ]
            # A batch that is not finite leaves the direction as it is.
            finite = ops.isfinite(norm(new))
            new = [ops.where(finite, n, d) for n, d in zip(new, direction)]
            return gradients, new, step.statistics(perturbed)

        def reused():
            factor = self.alpha * plain_norm / (norm(direction) + NORM_EPSILON)
            gradients = [
                None if p is None else p + ops.cast(factor * d, p.dtype)
                for p, d in zip(plain, direction)
            ]
            return gradients, direction, step.statistics(clean)

        gradients, direction, statistics = branch(is_full, full, reused)
        return step.outcome(
            gradients, clean, clean, statistics, zip(kept, direction)
        )

    def get_config(self):
        return {"k": self.k, "alpha": self.alpha}
