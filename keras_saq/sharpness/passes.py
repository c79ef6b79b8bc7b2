"""One forward and backward pass of a train step, as a pure function.

Everything a pass reads of the model is given to it, and everything it changes
is returned: batch statistics, seeds, metrics. So two passes over one batch
can start from the same state, and what a pass leaves behind is the caller's
decision. It runs the same way on every backend; a backend only has to say how
it differentiates.
"""

import collections
import dataclasses

import keras
from keras import ops

from keras_saq.layers import PerturbationScope


@dataclasses.dataclass
class Batch:
    """What a step trains on.

    Attributes:
        x: inputs.
        y: targets, or `None`.
        sample_weight: weights, or `None`.
        teacher: predictions of a teacher, or `None`.
        trajectory: targets of the strategy's own loss, or `None`.
    """

    x: object
    y: object = None
    sample_weight: object = None
    teacher: object = None
    trajectory: object = None

    def map(self, function):
        """The batch with `function` applied to each of its tensors."""

        def mapped(structure):
            return keras.tree.map_structure(
                lambda t: None if t is None else function(t), structure
            )

        return Batch(
            *(mapped(getattr(self, f.name)) for f in dataclasses.fields(self))
        )

    @property
    def size(self):
        """Number of samples; an integer where it is known."""
        return ops.shape(_first_tensor(self.x))[0]


def _first_tensor(structure):
    return next(t for t in keras.tree.flatten(structure) if t is not None)


@dataclasses.dataclass
class Pass:
    """What one pass computed.

    Attributes:
        loss: the loss, not scaled.
        y_pred: predictions.
        gradients: with respect to the trainable variables, in their order;
            `None` where there is none. With the optimizer's loss scale.
        eps_gradients: with respect to what is added to quantized weights.
        sample_gradients: with respect to the sample weights, or `None`.
        state: new values of the non-trainable variables.
        metrics: new values of the metrics' variables.
        quantized: dict from `id` of a variable to its quantized value.
        reads: how often each variable was read, by `id`.
        overlay_reads: how often each quantized value was read, by `id`.
    """

    loss: object
    y_pred: object
    gradients: list
    eps_gradients: list
    sample_gradients: list
    state: list
    metrics: list
    quantized: dict
    reads: dict
    overlay_reads: dict


class CountingScope(keras.StatelessScope):
    """A `StatelessScope` that counts how often variables are read."""

    def __init__(self, mapping):
        super().__init__(mapping, collect_losses=True)
        self.reads = collections.Counter()

    def get_current_value(self, variable):
        self.reads[id(variable)] += 1
        return super().get_current_value(variable)

    def final_value(self, variable):
        """The value at the end; does not count."""
        return super().get_current_value(variable)


def predict(model, x, values, state):
    """The model's outputs in training mode, at given values, and no more.

    Args:
        model: a `SAQModel`.
        x: inputs.
        values: values of `model.trainable_variables`.
        state: values of `model.non_trainable_variables`.
    """
    mapping = [
        *zip(model.trainable_variables, values),
        *zip(model.non_trainable_variables, state),
    ]
    with keras.StatelessScope(mapping, collect_losses=True):
        y = model(x, training=True)
    return keras.tree.map_structure(ops.stop_gradient, y)


def run_pass(
    model,
    differentiate,
    batch,
    values,
    eps,
    state,
    metrics,
    optimizer_values=None,
    sample_gradients=False,
):
    """Computes loss and gradients of `model` on one batch.

    Args:
        model: a compiled `SAQModel`.
        differentiate: `function(f, points)` that returns `(value, auxiliary,
            gradients)` for `f(points) = (value, auxiliary)`.
        batch: a `Batch`.
        values: values of `model.trainable_variables`.
        eps: list of pairs `(variable, tensor)` to be added after quantization.
        state: values of `model.non_trainable_variables`.
        metrics: values of `model.metrics_variables`.
        optimizer_values: values of the optimizer's variables, or `None` to
            read the variables themselves.
        sample_gradients: whether to differentiate by the sample weights too;
            `"only"` for by nothing else.

    Returns:
        A `Pass`.
    """
    constants, weights, notes = [], [], {}
    inputs = [*values, *(e for _, e in eps)]
    if sample_gradients:
        weights = keras.tree.flatten(batch.sample_weight)
    if sample_gradients == "only":
        constants, inputs = inputs, []

    def function(points):
        points = [*constants, *points]
        trainable = points[: len(values)]
        added = points[len(values) : len(values) + len(eps)]
        given = batch
        if sample_gradients:
            given = dataclasses.replace(
                batch,
                sample_weight=keras.tree.pack_sequence_as(
                    batch.sample_weight, points[len(values) + len(eps) :]
                ),
            )
        perturbed = PerturbationScope(
            {id(v): e for (v, _), e in zip(eps, added)}
        )
        mapping = [
            *zip(model.trainable_variables, trainable),
            *zip(model.non_trainable_variables, state),
            *zip(model.metrics_variables, metrics),
        ]
        if optimizer_values is not None:
            mapping += zip(model.optimizer.variables, optimizer_values)
        with CountingScope(mapping) as scope, perturbed:
            y_pred = model(given.x, training=True)
            loss = model.training_loss(given, y_pred)
            scaled = model.optimizer.scale_loss(loss)
        notes["reads"] = scope.reads + perturbed.reads
        notes["overlay_reads"] = perturbed.reads
        new_state = [
            scope.final_value(v) for v in model.non_trainable_variables
        ]
        new_metrics = [scope.final_value(v) for v in model.metrics_variables]
        auxiliary = loss, y_pred, new_state, new_metrics, perturbed.quantized
        return scaled, auxiliary

    _, auxiliary, gradients = differentiate(function, [*inputs, *weights])
    loss, y_pred, new_state, new_metrics, quantized = auxiliary
    gradients = [*(None for _ in constants), *gradients]
    split = len(values) + len(eps)
    return Pass(
        loss=loss,
        y_pred=y_pred,
        gradients=gradients[: len(values)],
        eps_gradients=gradients[len(values) : split],
        sample_gradients=gradients[split:],
        state=new_state,
        metrics=new_metrics,
        quantized=quantized,
        **notes,
    )
