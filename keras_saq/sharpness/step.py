"""What a strategy can ask for while it makes one training step.

A strategy (see `keras_saq.sharpness.strategies`) is written once, with
`keras.ops`; the step gives it passes, perturbations and the optimizer's
clock, on every backend and traced or not. All it returns are values: the
backend's own file assigns them.
"""

import dataclasses

import keras
from keras import ops

from keras_saq.sharpness import ascent
from keras_saq.sharpness import checks
from keras_saq.sharpness.participants import participants
from keras_saq.sharpness.passes import predict
from keras_saq.sharpness.passes import run_pass
from keras_saq.sharpness.rho import value_at


@dataclasses.dataclass
class Outcome:
    """What a strategy makes of a step.

    Attributes:
        gradients: for the optimizer, one per trainable variable or `None`.
        report: the `Pass` whose loss, predictions and metrics `fit` shows.
        state: new values of the non-trainable variables.
    """

    gradients: list
    report: object
    state: list

    @property
    def is_finite(self):
        """Scalar tensor: whether the weights may be updated."""
        return all_finite([self.report.loss, *self.gradients])


class Step:
    """One training step on one batch.

    Args:
        model: the `SAQModel`.
        differentiate: see `keras_saq.sharpness.passes.run_pass`.
        batch: a `Batch`.
        values: values of the trainable variables.
        state: values of the non-trainable variables.
        metrics: values of the metrics' variables.
        optimizer_values: see `run_pass`.
        all_reduce: `function(tensors)` that sums over replicas; `None` where
            each replica has a perturbation of its own.
    """

    def __init__(
        self,
        model,
        differentiate,
        batch,
        values,
        state,
        metrics,
        optimizer_values=None,
        all_reduce=None,
    ):
        self.model = model
        self.batch = batch
        self.values = list(values)
        self.state = list(state)
        self._metrics = list(metrics)
        self._optimizer_values = optimizer_values
        self._differentiate = differentiate
        self._all_reduce = all_reduce
        self._participants = participants(model, model.perturb)
        if not self._participants:
            raise ValueError(_nothing_to_perturb(model))
        self._added = [
            p
            for p in self._participants
            if p.is_quantized and model.case.after_quantization
        ]
        self._index = {
            id(v): i for i, v in enumerate(model.trainable_variables)
        }
        self._zeros = [(p.variable, _zeros(p.variable)) for p in self._added]
        self._kept = {
            id(v): i for i, v in enumerate(model.non_trainable_variables)
        }
        statistics = {id(v) for v in batch_statistics(model)}
        self._statistics = [
            i
            for i, v in enumerate(model.non_trainable_variables)
            if id(v) in statistics
        ]

    # Numbers.

    @property
    def update_count(self):
        """How many updates the optimizer has made: a scalar tensor."""
        return self.read(lambda: self.model.optimizer.iterations)

    @property
    def rho(self):
        """The radius at this step: a number or scalar tensor."""
        if isinstance(self.model.rho, float):
            return self.model.rho
        return value_at(self.model.rho, self.update_count)

    def read(self, function):
        """`function()` as a tensor, with the optimizer's current values."""
        mapping = []
        if self._optimizer_values is not None:
            mapping = zip(
                self.model.optimizer.variables, self._optimizer_values
            )
        with keras.StatelessScope(list(mapping)):
            return ops.convert_to_tensor(function())

    # Passes.

    def clean(self, batch=None, sample_gradients=False):
        """The pass at the unperturbed weights."""
        result = self._run(
            self.values, self._zeros, self.state, batch, sample_gradients
        )
        checks.check_first_pass(self._added, result)
        return result

    def perturbed(self, eps, clean=None, batch=None, sample_gradients=False):
        """The pass at perturbed weights.

        Args:
            eps: list of tensors or `None`, one for each participant.
            clean: the clean pass of the step, if there was one. With
                `batch_norm="both"` batch statistics go on from there.
            batch: the `Batch` to use if it is not the step's.
            sample_gradients: whether to differentiate by sample weights.
        """
        values, added = list(self.values), []
        after = {id(p.variable) for p in self._added}
        for participant, e in zip(self._participants, eps, strict=True):
            variable = participant.variable
            if id(variable) in after:
                added.append((variable, _zeros(variable) if e is None else e))
            elif e is not None:
                i = self._index[id(variable)]
                values[i] = values[i] + ops.cast(e, values[i].dtype)
        state = self.state
        if clean is not None:
            state = self._with_statistics(state, self.statistics(clean))
        result = self._run(values, added, state, batch, sample_gradients)
        if clean is not None:
            checks.check_reads(self.model, clean, result)
        return result

    def predict(self, values):
        """The model's outputs in training mode at other values.

        Args:
            values: of the trainable variables.
        """
        return predict(self.model, self.batch.x, values, self.state)

    def _run(self, values, eps, state, batch, sample_gradients):
        return run_pass(
            self.model,
            self._differentiate,
            self.batch if batch is None else batch,
            values,
            eps,
            state,
            self._metrics,
            self._optimizer_values,
            sample_gradients,
        )

    # Perturbations.

    @property
    def num_participants(self):
        """How many variables a perturbation moves."""
        return len(self._participants)

    def perturbation(self, clean, mask=None):
        """The eps of each participant, from the gradients of a clean pass.

        Args:
            clean: the `Pass` at the unperturbed weights.
            mask: a factor for the gradient of each participant, a vector.
        """
        from_quantized = {
            id(p.variable): g for p, g in zip(self._added, clean.eps_gradients)
        }
        if not self.model.case.from_quantized:
            from_quantized = {}
        gradients, values = [], []
        for participant in self._participants:
            key = id(participant.variable)
            if key in from_quantized:
                gradients.append(from_quantized[key])
                # A layer that was not called has no quantized value.
                value = clean.quantized.get(key, self._value(participant))
            else:
                gradients.append(clean.gradients[self._index[key]])
                value = self._value(participant)
            values.append(value)
        if mask is not None:
            gradients = [
                None if g is None else g * ops.cast(mask[i], g.dtype)
                for i, g in enumerate(gradients)
            ]
        return self.scaled(gradients, values)

    def perturbation_along(self, directions):
        """The eps of each participant along given directions.

        Args:
            directions: dict from `id` of a trainable variable to a tensor.
        """
        gradients = [directions.get(id(p.variable)) for p in self._participants]
        return self.scaled(gradients, map(self._value, self._participants))

    def scaled(self, gradients, values):
        """`rho` times the normed gradients, adaptively where chosen."""
        gradients = self.all_replicas(gradients)
        factors = ascent.factors(
            self._participants,
            list(values),
            [self._value(p) for p in self._participants],
            self.model.adaptive,
        )
        return ascent.perturbation(gradients, self.rho, factors)

    def all_replicas(self, tensors):
        """Sums over replicas, where they share one perturbation.

        Args:
            tensors: list of tensors and `None`.
        """
        if self._all_reduce is None:
            return tensors
        present = [t for t in tensors if t is not None]
        reduced = iter(self._all_reduce(present))
        return [None if t is None else next(reduced) for t in tensors]

    def one_replica(self, tensors):
        """A replica's part of sums over replicas; undone by the optimizer."""
        if self._all_reduce is None:
            return tensors
        (count,) = self._all_reduce([ops.ones((), "float32")])
        return [
            None if t is None else t / ops.cast(count, t.dtype) for t in tensors
        ]

    def _value(self, participant):
        return self.values[self._index[id(participant.variable)]]

    # State.

    def kept(self, variable):
        """The value, before this step, of a variable that a strategy keeps."""
        return self.state[self._kept[id(variable)]]

    def statistics(self, result):
        """Batch statistics after a pass, if passes hand them on; else []."""
        if self.model.batch_norm != "both":
            return []
        return [result.state[i] for i in self._statistics]

    def outcome(
        self,
        gradients,
        report,
        first,
        statistics=(),
        updates=(),
        ascent=None,
    ):
        """The step's outcome.

        Args:
            gradients: for the optimizer.
            report: the `Pass` to be shown.
            first: the first `Pass`, whose state is kept.
            statistics: of the last pass, see `statistics`.
            updates: pairs of a non-trainable variable and its new value.
            ascent: losses at the clean and at the perturbed weights, and
                whether the second was computed, if not always.
        """
        state = self._with_statistics(first.state, statistics)
        if self.model.batch_norm == "neither":
            old = [self.state[i] for i in self._statistics]
            state = self._with_statistics(state, old)
        new = {id(variable): value for variable, value in updates}
        if ascent is not None:
            new.update(self._climbed(*ascent))
        state = [
            new.get(id(v), value)
            for v, value in zip(self.model.non_trainable_variables, state)
        ]
        return Outcome(gradients, report, state)

    def _climbed(self, before, after, made=True):
        """The sums of losses before and after ascents, with this step's."""
        sums = self.model.training_state.ascent
        losses = ops.stack(
            [ops.cast(before, "float32"), ops.cast(after, "float32")]
        )
        new = self.kept(sums) + losses * ops.cast(made, "float32")
        return {id(sums): ops.where(ops.isfinite(new), new, self.kept(sums))}

    def _with_statistics(self, state, statistics):
        state = list(state)
        for i, value in zip(self._statistics, statistics):
            state[i] = value
        return state


def _zeros(variable):
    return ops.zeros(tuple(variable.shape), "float32")


def batch_statistics(model):
    """The moving statistics of batch normalization."""
    return [
        v
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
        for v in layer._non_trainable_variables
    ]


def keep_finite(outcome, old_state):
    """The outcome's state, but `old_state` if the loss or it is not finite."""
    pairs = list(zip(outcome.state, old_state, strict=True))
    changed = [new for new, old in pairs if new is not old and _is_float(new)]
    finite = all_finite([outcome.report.loss, *changed])
    return [
        ops.where(finite, new, old) if new is not old else new
        for new, old in pairs
    ]


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


def all_finite(tensors):
    """Scalar tensor: whether none of the tensors has a NaN or an infinity."""
    finite = [
        ops.isfinite(ops.sum(ops.square(ops.cast(t, "float32"))))
        for t in tensors
        if t is not None
    ]
    return ops.all(ops.stack(finite))


def _nothing_to_perturb(model):
    if not model.trainable_variables:
        return (
            f"The model '{model.name}' has no trainable weights. Set "
            "`layer.trainable = True` for the layers to be trained, and "
            "compile the model again."
        )
    return (
        f"The model '{model.name}' has no trainable variable of the kinds "
        f"that are to be perturbed. Received: perturb={list(model.perturb)}. "
        "See `keras_saq.sharpness.participants.KINDS`."
    )
