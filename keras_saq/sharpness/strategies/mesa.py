"""MESA: the model learns from an average of its own past."""

import dataclasses

import keras
from keras import ops

from keras_saq.sharpness.distillation import softened_distance
from keras_saq.sharpness.strategies.base import Strategy
from keras_saq.sharpness.strategies.base import check_share
from keras_saq.sharpness.strategies.starting import check_start
from keras_saq.sharpness.strategies.starting import first_update


@keras.saving.register_keras_serializable("keras_saq")
class MESA(Strategy):
    """Memory-efficient sharpness-aware training: a trajectory loss, no ascent.

    Source: Du et al., "Sharpness-Aware Training for Free" (arXiv 2205.14083;
    released as AngusDujw/SAF). With the logits z, those z_v of the same batch
    under averaged weights v, a temperature T, and the update count t:

        v    = decay * v + (1 - decay) * w
        loss = L(w) + weight * T^2 * KL(softmax(z_v / T) || softmax(z / T))

    from update `start` on. The average is taken over the latent weights, and
    over scales, gamma and beta. It starts at the first step and is divided by
    1 - decay^(t + 1), as Adam does, so that it is one from the beginning. The
    published decay is 0.9998; in short runs the average has to keep up.

    For classification: predictions are logits, or probabilities with
    `from_logits=False`. `rho` has no effect, and there is no ascent. For
    quantized networks not published: a transfer.

    Cost: 4/3: the pass, and a forward pass at v.

    Args:
        weight: of the trajectory loss.
        temperature: T, above 0.
        decay: of the average, from 0 and below 1.
        start: from 0 to 1, the share of the updates of `fit` before the
            trajectory loss is added; or, above 1, the number of an update.
        from_logits: whether outputs are logits.

    Example:

    >>> from keras_saq.sharpness.strategies import MESA
    >>> round(MESA().cost, 2)
    1.33
    """

    cost = 4 / 3

    def __init__(
        self,
        weight=0.8,
        temperature=5.0,
        decay=0.995,
        start=0.1,
        from_logits=True,
    ):
        if not 0 <= weight < float("inf"):
            raise ValueError(
                "`weight` must be a finite number that is not negative. "
                f"Received: weight={weight!r}"
            )
        if not 0 < temperature < float("inf"):
            raise ValueError(
                "`temperature` must be a finite number above 0. "
                f"Received: temperature={temperature!r}"
            )
        check_share("1 - decay", 1 - decay)
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.decay = float(decay)
        self.start = check_start(start)
        self.from_logits = bool(from_logits)
        self._average = {}

    def build(self, training_state, variables):
        self._average = {
            id(v): training_state.slot(f"mesa_{i}", v.shape)
            for i, v in enumerate(variables)
        }
        self._count = training_state.slot("mesa_count", ())
        self._first = training_state.slot("mesa_first", ())

    def begin(self, first, last):
        self._first.assign(first_update(self, first, last))

    def step(self, step):
        variables = step.model.trainable_variables
        kept = [self._average[id(v)] for v in variables]
        count = step.kept(self._count) + 1
        average = [
            self.decay * step.kept(a)
            + (1 - self.decay) * ops.cast(w, "float32")
            for a, w in zip(kept, step.values)
        ]
        whole = 1 - self.decay**count
        values = [
            ops.cast(a / whole, w.dtype) for a, w in zip(average, step.values)
        ]
        active = ops.cast(step.update_count, "float32") >= step.kept(
            self._first
        )
        targets = step.predict(values), ops.cast(active, "float32")
        step.batch = dataclasses.replace(step.batch, trajectory=targets)
        clean = step.clean()
        updates = [*zip(kept, average), (self._count, count)]
        return step.outcome(clean.gradients, clean, clean, updates=updates)

    def trajectory_loss(self, y_pred, targets, sample_weight):
        targets, active = targets
        distance = softened_distance(
            y_pred,
            targets,
            self.temperature,
            self.from_logits,
            sample_weight,
        )
        # Not `active * distance`, which is NaN where the average is not
        # finite.
        return ops.where(active > 0, self.weight * distance, 0.0)

    def get_config(self):
        return {
            "weight": self.weight,
            "temperature": self.temperature,
            "decay": self.decay,
            "start": self.start,
            "from_logits": self.from_logits,
        }
