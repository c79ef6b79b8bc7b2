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
        elsewhere:     gradient = g + alpha * r * (||g|| / ||g_v||) * g_v

    The gradients are those of the latent weights; eps is the case's. g_v is
    kept in one variable per trainable variable, which is saved with the
    model, but not in its weights' file of `model.model`.

    The method rests on g_v changing slowly. With `adapt` that is measured: r
    is the moving average (0.9) of the cosine of two g_v in a row, and at
    least 0. In small batches g_v is one batch's noise, r goes to 0, and what
    is left is `Periodic`, instead of steps along a noise of before. That
    factor is ours; `adapt=False` is the paper's r = 1.

    Cost: 1 + 1/k.

    Args:
        k: number of steps from one perturbed step to the next.
        alpha: weight of the reused component.
        adapt: whether to measure if there is something to reuse.

    Example:

    >>> from keras_saq.sharpness.strategies import LookSAM
    >>> LookSAM(k=10).cost
    1.1
    """

    def __init__(self, k=5, alpha=0.7, adapt=True):
        self.k = check_period(k)
        if isinstance(alpha, bool) or not 0 <= alpha < float("inf"):
            raise ValueError(
                "`alpha` must be a finite number that is not negative. "
                f"Received: alpha={alpha!r}"
            )
        self.alpha = float(alpha)
        self.adapt = bool(adapt)
        self._kept = {}
        self._cosine = None

    @property
    def cost(self):
        return 1 + 1 / self.k

    def build(self, training_state, variables):
        self._kept = {
            id(v): training_state.slot(f"looksam_{i}", v.shape)
            for i, v in enumerate(variables)
        }
        if self.adapt:
            self._cosine = training_state.slot("looksam_cosine", ())

    def step(self, step):
        clean = step.clean()
        eps = step.perturbation(clean)
        is_full = ops.equal(step.update_count % self.k, 0)

        def full():
            perturbed = step.perturbed(eps, clean)
            return (
                perturbed.gradients,
                step.statistics(perturbed),
                perturbed.loss,
            )

        sharp, statistics, loss = branch(
            is_full,
            full,
            lambda: (clean.gradients, step.statistics(clean), clean.loss),
        )
        # Outside of the branch, which must not wait for other replicas.
        plain = step.all_replicas(clean.gradients)
        sharp = step.all_replicas(sharp)
        kept = [self._kept[id(v)] for v in step.model.trainable_variables]
        direction = [step.kept(v) for v in kept]
        weight = self.alpha
        if self.adapt:
            weight = weight * ops.maximum(step.kept(self._cosine), 0.0)
        reused = _reused(plain, direction, weight)
        new = _orthogonal(sharp, plain, direction)
        # A batch that is not finite leaves the direction as it is.
        is_new = ops.logical_and(is_full, ops.isfinite(norm(new)))
        updates = list(zip(kept, _choose(is_new, new, direction)))
        if self.adapt:
            before = step.kept(self._cosine)
            (after,) = _choose(
                is_new, [_averaged(before, new, direction)], [before]
            )
            updates.append((self._cosine, after))
        gradients = step.one_replica(_choose(is_full, sharp, reused))
        return step.outcome(
            gradients,
            clean,
            clean,
            statistics,
            updates,
            ascent=(clean.loss, loss, is_full),
        )

    def get_config(self):
        return {"k": self.k, "alpha": self.alpha, "adapt": self.adapt}


def _reused(plain, direction, weight):
    factor = weight * norm(plain) / (norm(direction) + NORM_EPSILON)
    return [
        None if p is None else p + ops.cast(factor * d, p.dtype)
        for p, d in zip(plain, direction)
    ]


def _averaged(average, new, old):
    """The moving average of the cosine of two directions in a row."""
    lengths = norm(new) * norm(old)
    return 0.9 * average + 0.1 * dot(new, old) / (lengths + NORM_EPSILON)


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
