"""Both passes every k-th step, a plain step otherwise."""

import keras
from keras import ops

from keras_saq.sharpness.strategies.base import check_period
from keras_saq.sharpness.strategies.sometimes import Sometimes


@keras.saving.register_keras_serializable("keras_saq")
class Periodic(Sometimes):
    """Perturbs in every `k`-th step only (SAM-k).

    With the optimizer's update count t:

        gradient = grad L(w + eps)   where t mod k == 0
        gradient = grad L(w)         elsewhere

    Cost: 1 + 1/k. A reconstruction: the obvious way to save. The LookSAM
    paper (arXiv 2203.02714) reports that it loses accuracy on float models
    against reusing the direction, see `LookSAM`.

    Args:
        k: number of steps from one perturbed step to the next.

    Example:

    >>> from keras_saq.sharpness.strategies import Periodic
    >>> Periodic(k=4).cost
    1.25
    """

    def __init__(self, k=5):
        self.k = check_period(k)

    @property
    def cost(self):
        return 1 + 1 / self.k

    def is_full(self, step):
        return ops.equal(step.update_count % self.k, 0)

    def get_config(self):
        return {"k": self.k}
