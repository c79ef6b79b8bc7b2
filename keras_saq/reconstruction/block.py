"""Learned rounding and ranges of one block of a network.

What is trained: a number per weight (see `rounding`) and the scales of the
activations in the block. What for: that the block, given what its quantized
predecessor makes, makes what the float block makes of what the float
predecessor makes (BRECQ, arXiv 2102.05426, with the asymmetric inputs of
AdaRound, arXiv 2004.10568). The loss per step is

    L = C * mean (y_q - y)^2 / var(y) + 0.1 * R(v)

with C the number of channels of the block's output y and the regularizer R of
`rounding`. With outputs of deviation 1 this is AdaRound's loss; divided by the
variance it does not depend on the units of the output. R weighs ten times as
much as there, and the learning rate is a hundred times theirs: with hundreds
of steps instead of 20,000, rounding is left undecided otherwise (of a block of
ResNet-8 at w3a8, 62 % after 300 steps, and an error of 0.105 instead of 0.024).
In the first four fifths of the steps both are trained; in the rest the weights
are rounded as learned, and the scales alone are trained ("activation steps
afterwards").
"""

import keras
import numpy as np
from keras import ops

from keras_saq.layers import PerturbationScope
from keras_saq.models.calibration import quantized_layers
from keras_saq.reconstruction import rounding
from keras_saq.reconstruction.adam import adam
from keras_saq.reconstruction.compiled import compiled
from keras_saq.reconstruction.compiled import gradients_of

ROUNDING_SHARE = 0.8
REGULARIZATION = 0.1


class Weight:
    """One weight whose rounding is learned."""

    def __init__(self, variable, quantizer):
        self.variable = variable
        self.quantizer = quantizer
        value = np.copy(ops.convert_to_numpy(variable))
        scale = ops.convert_to_numpy(quantizer.scale_for(value.shape))
        self.value = value
        self.scale = np.broadcast_to(scale, value.shape).astype("float32")
        self.limits = quantizer.qmin, quantizer.qmax
        if getattr(quantizer, "oriented", False):
            # Codes of a channel that is turned around count from above.
            sign = quantizer.granularity.spread_over(
                quantizer.orientation.value, value.shape
            )
            sign = ops.convert_to_numpy(sign) + np.zeros(value.shape)
            self.limits = tuple(
                np.where(sign > 0, limit, -other).astype("float32")
                for limit, other in zip(self.limits, self.limits[::-1])
            )

    @property
    def is_on_a_plain_grid(self):
        """Whether its codes are the clipped, rounded w / s."""
        codes = np.clip(np.rint(self.value / self.scale), *self.limits)
        made = ops.convert_to_numpy(self.quantizer(self.variable))
        return bool(
            (self.quantizer.codes(self.value) == codes).mean() > 0.999
            and np.allclose(made, codes * self.scale, atol=self.scale.max())
            and np.abs(made - codes * self.scale).mean()
            < 1e-3 * self.scale.mean()
        )

    def nearest(self):
        codes = np.clip(np.rint(self.value / self.scale), *self.limits)
        return (codes * self.scale).astype("float32")

    def soft(self, v):
        return rounding.soft_weight(self.value, self.scale, v, *self.limits)

    def hard(self, v):
        codes = rounding.learned_codes(self.value, self.scale, v, *self.limits)
        return (codes * self.scale).astype("float32")

    def store(self, v):
        codes = rounding.learned_codes(self.value, self.scale, v, *self.limits)
        new = rounding.stored_weight(self.value, self.scale, codes)
        self.variable.assign(new)


class BlockTrainer:
    """Learns the rounding and the ranges of one block.

    Args:
        block: the quantized part, a Keras model.
        steps: number of steps.
        rate: learning rate of the rounding.
        range_rate: learning rate of the logarithms of scales.
        batch_size: samples per step.
    """

    def __init__(self, block, steps, rate, range_rate, batch_size):
        self._block = block
        self._steps = steps
        self._rates = rate, range_rate
        self._batch_size = batch_size
        self.weights, self._ranges = [], []
        seen = set()
        for layer in quantized_layers(block):
            of_weights = {id(q) for _, _, q in layer.quantized_weights()}
            for _, variable, quantizer in layer.quantized_weights():
                weight = Weight(variable, quantizer)
                if weight.is_on_a_plain_grid and id(variable) not in seen:
                    seen.add(id(variable))
                    self.weights.append(weight)
            for quantizer in layer.quantizers:
                if id(quantizer) not in of_weights:
                    self._ranges += [
                        variable
                        for variable in quantizer.trainable_variables
                        if id(variable) not in seen
                    ]
                    seen |= {id(v) for v in quantizer.trainable_variables}

    def train(self, inputs, targets, sample_weight, random, told=None):
        """Trains, and keeps what was learned where it is better.

        Args:
            inputs: list of arrays: what the block reads.
            targets: list of arrays: what it shall make.
            sample_weight: array of a weight per sample, or `None`.
            random: a `numpy.random.Generator`.
            told: function that is called after each step.

        Returns:
            `(error before, error after)`: the squared error as a share of the
            variance of the targets.
        """
        before = self.error(inputs, targets)
        if not (self.weights or self._ranges):
            return before, before
        kept = [
            (v, np.copy(ops.convert_to_numpy(v)))
            for v in [*(w.variable for w in self.weights), *self._ranges]
        ]
        vs = self._learn(inputs, targets, sample_weight, random, told)
        for weight, v in zip(self.weights, vs):
            weight.store(v)
        after = self.error(inputs, targets)
        if not after < before:
            for variable, value in kept:
                variable.assign(value)
            after = before
        return before, after

    def error(self, inputs, targets):
        """The squared error of the block, as a share of the variance."""
        made = run_in_batches(self._block, inputs, self._batch_size)
        return float(
            np.mean(
                [
                    np.square(a - b, dtype="float32").mean()
                    / max(float(b.var()), 1e-12)
                    for a, b in zip(made, targets)
                ]
            )
        )

    def _learn(self, inputs, targets, sample_weight, random, told):
        factors = [
            target.shape[-1] / max(float(target.var()), 1e-12)
            for target in targets
        ]
        vs = [rounding.initial(w.value, w.scale) for w in self.weights]
        scales = [ops.convert_to_numpy(v) for v in self._ranges]
        num_rounding = int(round(ROUNDING_SHARE * self._steps))
        if not self.weights:
            num_rounding = 0
        phases = [(False, num_rounding), (True, self._steps - num_rounding)]
        for is_hard, steps in phases:
            points = scales if is_hard else [*vs, *scales]
            if not points or not steps:
                continue
            fixed = [w.hard(v) for w, v in zip(self.weights, vs)]
            step = compiled(self._step(factors, fixed if is_hard else None))
            rates = [self._rates[1]] * len(points)
            if not is_hard:
                rates[: len(vs)] = [self._rates[0]] * len(vs)
            state = [
                [ops.convert_to_tensor(a, dtype="float32") for a in group]
                for group in (
                    points,
                    [np.zeros(np.shape(p)) for p in points],
                    [np.zeros(np.shape(p)) for p in points],
                )
            ]
            rates = [ops.convert_to_tensor(r, dtype="float32") for r in rates]
            for i in range(steps):
                batch = _drawn(len(inputs[0]), self._batch_size, random)
                exponent, share = rounding.schedule(i, steps)
                # A quarter of a cosine to nothing.
                decay = (
                    0.5 + 0.5 * np.cos(np.pi * i / steps) if is_hard else 1.0
                )
                numbers = np.float32([exponent, share, i + 1, decay])
                state = step(
                    *state,
                    rates,
                    [a[batch] for a in inputs],
                    [a[batch] for a in targets],
                    _weights_of(sample_weight, batch),
                    numbers,
                )
                if told is not None:
                    told()
            points = [np.asarray(ops.convert_to_numpy(p)) for p in state[0]]
            if not is_hard:
                vs, points = points[: len(vs)], points[len(vs) :]
            scales = points
        for variable, value in zip(self._ranges, scales):
            if np.isfinite(value).all():
                variable.assign(value)
        return vs

    def _step(self, factors, fixed):
        """One step of Adam, as a function of tensors alone."""
        weights = self.weights
        number = 0 if fixed is not None else len(weights)
        nearest = [w.nearest() for w in weights]

        def loss(points, inputs, targets, sample_weight, numbers):
            values = fixed
            if values is None:
                values = [w.soft(v) for w, v in zip(weights, points)]
            changes = {
                id(w.variable): ops.convert_to_tensor(value) - old
                for w, value, old in zip(weights, values, nearest)
            }
            mapping = list(zip(self._ranges, points[number:]))
            with (
                keras.StatelessScope(mapping, collect_losses=True),
                PerturbationScope(changes),
            ):
                made = self._block(_one(inputs), training=False)
            made = keras.tree.flatten(made)
            total = 0.0
            for factor, a, b in zip(factors, made, targets):
                square = ops.square(ops.cast(a, "float32") - b)
                square = ops.mean(ops.reshape(square, (len(b), -1)), axis=1)
                total += factor * ops.mean(square * sample_weight)
            for v in points[:number]:
                share = REGULARIZATION * numbers[1]
                total += share * rounding.regularizer(v, numbers[0])
            return total

        def step(points, means, squares, rates, *batch):
            count, decay = batch[-1][2], batch[-1][3]
            gradients = gradients_of(lambda p: loss(p, *batch), points)
            made = [
                adam(p, m, s, g, count, rate * decay)
                for p, m, s, g, rate in zip(
                    points, means, squares, gradients, rates
                )
            ]
            return [list(group) for group in zip(*made)]

        return step


def run_in_batches(model, inputs, batch_size):
    """What a model makes of arrays in inference, as a list of arrays."""
    parts = []
    for start in range(0, len(inputs[0]), batch_size):
        some = [a[start : start + batch_size] for a in inputs]
        made = model(_one(some), training=False)
        parts.append(
            [
                np.asarray(ops.convert_to_numpy(ops.cast(a, "float32")))
                for a in keras.tree.flatten(made)
            ]
        )
    return [np.concatenate(arrays) for arrays in zip(*parts)]


def _one(arrays):
    return arrays[0] if len(arrays) == 1 else arrays


def _drawn(count, size, random):
    return random.choice(count, min(size, count), replace=False)


def _weights_of(sample_weight, batch):
    if sample_weight is None:
        return np.ones(len(batch), "float32")
    return sample_weight[batch]
