"""How a supernet is trained: weights, scales and bits in the same steps.

    loss = cross entropy + margin_weight * L_margin
           + beta(t) * sum_budgets max(0, E[cost] / limit - 1)

Single level, as in EdMIPS and GMPQ: one optimizer step moves the weights, the
scales of all candidates and the logits of the choices, on every batch. beta
grows over the first part of the search. `SearchTrainer` makes plain steps,
`SharpSearchTrainer` those of SAQ: it perturbs the mixture of quantized
weights (the union of both papers was published as ASGA, arXiv 2505.04877, of
which this has the perturbation only).
"""

import keras
import numpy as np
from keras import ops

from keras_saq.models.model import Trainable
from keras_saq.models.wrapper import Wrapper
from keras_saq.search.choice import probability_scope
from keras_saq.sharpness import SAQModel

# Share of the search in which the weight of the cost grows from 0.
_RAMP = 0.2
# What SAQ may perturb here: no logits, and no scales.
_PERTURBED = ("weights", "biases", "normalization")


class SearchLoss:
    """Mixin of the trainers: the probabilities, and the search's loss."""

    def prepare(
        self,
        supernet,
        limits=(),
        margin=None,
        margin_weight=1.0,
        cost_weight=1.0,
        num_steps=1,
        sample=False,
        seed=0,
    ):
        """Sets what the loss needs; called once, before `compile`.

        Args:
            supernet: a `Supernet`.
            limits: list of `keras_saq.search.budget.Limit`.
            margin: a `LargeMargin`, or `None` for no such term.
            margin_weight: its factor.
            cost_weight: beta, after the ramp.
            num_steps: number of steps of the whole search.
            sample: draws one candidate per group and step at random instead
                of mixing them, with equal probabilities; nothing is decided.
            seed: of the drawing.
        """
        self.__dict__["supernet"] = supernet
        self.__dict__["_limits"] = list(limits)
        self.clock = supernet.clock
        self.margin = margin
        self.margin_weight = float(margin_weight)
        self.cost_weight = float(cost_weight)
        self.num_steps = int(num_steps)
        self.seed_generator = None
        if sample:
            self.seed_generator = keras.random.SeedGenerator(seed)
        names = [] if sample else [limit.cost.name for limit in limits]
        names += ["margin"] if margin is not None else []
        self.search_metrics = [keras.metrics.Mean(name) for name in names]
        return self

    def call(self, inputs, training=None):
        choices = self.supernet.choices
        if training and self.seed_generator is not None:
            given = [self._draw(choice) for choice in choices]
        else:
            given = [choice.softmax() for choice in choices]
        with probability_scope(choices, given):
            return super().call(inputs, training=training)

    def _draw(self, choice):
        count = len(choice.bits)
        index = keras.random.randint((), 0, count, seed=self.seed_generator)
        return ops.one_hot(index, count, dtype="float32")

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = super().compute_loss(
            x=x,
            y=y,
            y_pred=y_pred,
            sample_weight=sample_weight,
            training=training,
        )
        features = self.supernet.take_features()
        if not training:
            return loss
        values = []
        if self.seed_generator is None:
            values, penalty = self._costs()
            loss += penalty
        if self.margin is not None:
            value = self.margin(features, y)
            values.append(value)
            loss += self.margin_weight * value
        for metric, value in zip(self.search_metrics, values, strict=True):
            metric.update_state(value)
        self.clock.advance(1.0 / self.num_steps)
        return loss

    def _costs(self):
        """Expected costs in units of their limits, and the penalty."""
        probabilities = [c.softmax() for c in self.supernet.choices]
        ramp = ops.minimum(self.clock.progress.value / _RAMP, 1.0)
        values, penalty = [], 0.0
        for limit in self._limits:
            ratio = limit.cost.expected(probabilities) / float(limit.limit)
            values.append(ratio)
            penalty += ops.relu(ratio - 1.0)
        return values, self.cost_weight * ramp * penalty


class PlainTrainer(Wrapper, Trainable, keras.Model):
    """A model around a quantized model, with Keras's own train step."""

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)


class SearchTrainer(SearchLoss, PlainTrainer):
    """Trains a supernet."""


class SharpSearchTrainer(SearchLoss, SAQModel):
    """Trains a supernet with SAQ's two passes."""

    def __init__(self, model, rho, **kwargs):
        super().__init__(model, rho=rho, perturb=_PERTURBED, **kwargs)


class Batches(keras.utils.PyDataset):
    """Shuffled batches of arrays; an epoch's order follows from the seed.

    So a search that is resumed sees what it would have seen.

    Args:
        x: inputs, an array.
        y: labels, an array.
        batch_size: samples per batch; what is left over waits.
        seed: of the order.
        epoch: the first epoch.
        augment: `function(batch of inputs, numpy.random.Generator)`, or
            `None`.
    """

    def __init__(self, x, y, batch_size, seed, epoch=0, augment=None):
        super().__init__()
        self._x, self._y = x, y
        self._batch_size = min(batch_size, len(x))
        self._seed, self._epoch, self._augment = seed, epoch, augment
        self._shuffle()

    def _shuffle(self):
        rng = np.random.default_rng((self._seed, self._epoch))
        self._order = rng.permutation(len(self._x))

    @property
    def num_batches(self):
        return len(self._x) // self._batch_size

    def __getitem__(self, index):
        start = index * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        x, y = self._x[chosen], self._y[chosen]
        if self._augment is not None:
            rng = np.random.default_rng((self._seed, self._epoch, index))
            x = self._augment(x, rng)
        return x, y

    def on_epoch_end(self):
        self._epoch += 1
        self._shuffle()
