"""Both passes in some of the steps, plain steps elsewhere."""

from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.base import mixed
from keras_saq.sharpness.strategies.branches import branch


class Sometimes(Strategy):
    """Both passes where `is_full` says so.

    Attributes:
        mix: share of the plain gradient, see `Full`.
    """

    mix = 0.0

    def is_full(self, step):
        """Scalar boolean tensor: whether this step makes both passes."""
        raise NotImplementedError

    def step(self, step):
        clean = step.clean()
        eps = step.perturbation(clean)
        is_full = self.is_full(step)

        def full():
            perturbed = step.perturbed(eps, clean)
            return (
                mixed(clean.gradients, perturbed.gradients, self.mix),
                step.statistics(perturbed),
                perturbed.loss,
            )

        gradients, statistics, loss = branch(
            is_full,
            full,
            lambda: (clean.gradients, step.statistics(clean), clean.loss),
        )
        return step.outcome(
            gradients,
            clean,
            clean,
            statistics,
            ascent=(clean.loss, loss, is_full),
        )
