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

    Example:

    >>> from keras_saq.sharpness.strategies import LookSAM
    >>> LookSAM(k=10).cost
    1.1
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
        is_full = ops.equal(step.update_count % self.k, 0)

        def full():
            perturbed = step.perturbed(eps, clean)
            return perturbed.gradients, step.statistics(perturbed)

        sharp, statistics = branch(
            is_full, full, lambda: (clean.gradients, step.statistics(clean))
        )
        # Outside of the branch, which must not wait for other replicas.
        plain = step.all_replicas(clean.gradients)
        sharp = step.all_replicas(sharp)
        kept = [self._kept[id(v)] for v in step.model.trainable_variables]
        state = dict(
            zip(map(id, step.model.non_trainable_variables), step.state)
        )
        direction = [state[id(v)] for v in kept]
        reused = self._reused(plain, direction)
        new = _orthogonal(sharp, plain, direction)
        # A batch that is not finite leaves the direction as it is.
        is_new = ops.logical_and(is_full, ops.isfinite(norm(new)))
        direction = _choose(is_new, new, direction)
        gradients = step.one_replica(_choose(is_full, sharp, reused))
        return step.outcome(
            gradients, clean, clean, statistics, zip(kept, direction)
        )

    def _reused(self, plain, direction):
        factor = self.alpha * norm(plain) / (norm(direction) + NORM_EPSILON)
        return [
            None if p is None else p + ops.cast(factor * d, p.dtype)
            for p, d in zip(plain, direction)
        ]

    def get_config(self):
        return {"k": self.k, "alpha": self.alpha}


def _orthogonal(sharp, plain, direction):
    """What of `sharp` is orthogonal to `plain`."""
    along = dot(sharp, plain) / (ops.square(norm(plain)) + NORM_EPSILON)
    return [
        d if s is None else ops.cast(s - along * p, d.dtype)
        for s, p, d in zip(sharp, plain, direction)
    ]


def _choose(condition, when_true, when_false):
    return [
        None if a is None else ops.where(condition, a, b)
        for a, b in zip(when_true, when_false)
    ]
