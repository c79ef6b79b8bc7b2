"""Plain steps first, SAQ in the last part of the training."""

import keras
from keras import ops

from keras_saq.sharpness.strategies.base import check_mix
from keras_saq.sharpness.strategies.sometimes import Sometimes
from keras_saq.sharpness.strategies.starting import check_start
from keras_saq.sharpness.strategies.starting import first_update


@keras.saving.register_keras_serializable("keras_saq")
class Late(Sometimes):
    """Plain steps, then both passes from some point of `fit` on.

    Source: for SAM on float networks, Zhou et al., "Sharpness-Aware
    Minimization Efficiently Selects Flatter Minima Late in Training" (arXiv
    2410.10373). With the optimizer's update count t, and T updates in `fit`:

        gradient = grad L(w)         where t < ceil(start * T)
        gradient = grad L(w + eps)   from there on

    The optimizer's state and learning rate go on as they are, so leave the
    rate something to do there: a cosine to 0 has 15 % of its first rate left
    when the last quarter begins, and 2 % when the last tenth does.

    Cost: 1 + (1 - start).

    Args:
        start: from 0 to 1, the share of the updates of `fit` that are plain;
            or, above 1, the update from which both passes are made.
        mix: share of the plain gradient in those, see `Full`.

    Raises:
        ValueError: in `fit`, if `start` is a share and the number of steps
            of an epoch is not known.

    Example:

    >>> from keras_saq.sharpness.strategies import Late
    >>> Late(start=0.7).cost
    1.3
    """

    def __init__(self, start=0.75, mix=0.0):
        self.start = check_start(start)
        self.mix = check_mix(mix)
        self._first_full = None

    @property
    def cost(self):
        return round(2 - self.start, 10) if self.start <= 1 else 2.0

    def build(self, training_state, variables):
        self._first_full = training_state.slot("late_first_full", ())

    def begin(self, first, last):
        self._first_full.assign(first_update(self, first, last))

    def is_full(self, step):
        first = step.kept(self._first_full)
        return ops.cast(step.update_count, "float32") >= first

    def get_config(self):
        return {"start": self.start, "mix": self.mix}
