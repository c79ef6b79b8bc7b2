"""The loss over a set of data as a function of what is added to weights.

For a quantized model that is L(Q(w) + d): the point that evaluation and
export use, and a displacement after quantization, as in case 3. Inference
mode: moving statistics, no dropout, no update of anything.
"""

import keras
import numpy as np
from keras import ops

from keras_saq.layers import PerturbationScope
from keras_saq.models import require_calibrated
from keras_saq.sharpness.participants import check_kinds
from keras_saq.sharpness.participants import participants


class Surface:
    """Loss and gradient of a model over data, at displaced weights.

    Args:
        model: a compiled model; its loss is used.
        data: `(x, y)` or `(x, y, sample_weight)` of arrays, or an iterable
            of such batches.
        perturb: which variables are displaced, see
            `keras_saq.sharpness.participants.KINDS`.
        batch_size: for arrays.
        loss: a Keras loss, instead of the model's.
    """

    def __init__(self, model, data, perturb, batch_size=128, loss=None):
        if loss is None and not getattr(model, "compiled", False):
            raise ValueError(
                "The model has no loss yet. Call `model.compile(loss=...)`, "
                "or give `loss`, such as `loss='mse'`. "
                f"Received: the model '{model.name}', which is not compiled."
            )
        require_calibrated(model, "measure its sharpness")
        self.model = model
        self._loss = None if loss is None else keras.losses.get(loss)
        self._batches = list(_batches(data, batch_size))
        if not self._batches:
            raise ValueError(
                "Measuring sharpness needs at least one sample. "
                f"Received: an empty {type(data).__name__}."
            )
        self.participants = participants(model, check_kinds(perturb))
        if not self.participants:
            raise ValueError(
                f"The model '{model.name}' has no trainable variable of the "
                f"kinds to be displaced. Received: perturb={perturb!r}"
            )
        self._index = {
            id(v): i for i, v in enumerate(model.trainable_variables)
        }
        self._differentiate = backend_differentiate()
        self._function = _compiled(self._batch_gradients)
        self._value = _compiled(self._batch_loss)

    @property
    def zero(self):
        """No displacement: a list of arrays, one for each participant."""
        return [
            np.zeros(tuple(p.variable.shape), "float32")
            for p in self.participants
        ]

    def points(self):
        """The values that are displaced: Q(w), or the variable itself."""
        weights = {}
        for layer in self.model._flatten_layers():
            if hasattr(layer, "quantized_weights"):
                for _, variable, quantizer in layer.quantized_weights():
                    weights[id(variable)] = quantizer(variable.value)
        return [
            np.asarray(
                ops.convert_to_numpy(weights.get(id(p.variable), p.variable)),
                "float32",
            )
            for p in self.participants
        ]

    def loss(self, displacement=None):
        """The mean loss at a displacement: a float."""
        displacement = self.zero if displacement is None else displacement
        total = [
            (_number(self._value(batch, displacement)), _size(batch))
            for batch in self._batches
        ]
        return sum(v * n for v, n in total) / sum(n for _, n in total)

    def gradient(self, displacement=None):
        """The mean loss and its gradient: a float and a list of arrays."""
        displacement = self.zero if displacement is None else displacement
        total, count, loss = None, 0, 0.0
        for batch in self._batches:
            value, gradients = self._function(batch, displacement)
            n = _size(batch)
            arrays = [n * ops.convert_to_numpy(g) for g in gradients]
            total = (
                arrays
                if total is None
                else [a + b for a, b in zip(total, arrays)]
            )
            loss, count = loss + n * _number(value), count + n
        return loss / count, [t / count for t in total]

    def _batch_loss(self, batch, displacement):
        x, y, sample_weight = batch
        values = [ops.convert_to_tensor(v) for v in self._variables()]
        after = {}
        for participant, d in zip(self.participants, displacement):
            if participant.is_quantized:
                after[id(participant.variable)] = ops.convert_to_tensor(d)
            else:
                i = self._index[id(participant.variable)]
                values[i] = values[i] + ops.cast(d, values[i].dtype)
        mapping = list(zip(self.model.trainable_variables, values))
        mapping += [(v, v.value) for v in self.model.non_trainable_variables]
        if getattr(self.model, "compiled", False):
            mapping += [(v, v.value) for v in self.model.metrics_variables]
        scope = keras.StatelessScope(mapping, collect_losses=True)
        with scope, PerturbationScope(after):
            y_pred = self.model(x, training=False)
            if self._loss is not None:
                loss = _weighted(self._loss, y, y_pred, sample_weight)
            else:
                loss = self.model.compute_loss(
                    x=x,
                    y=y,
                    y_pred=y_pred,
                    sample_weight=sample_weight,
                    training=False,
                )
        return ops.cast(loss, "float32")

    def _batch_gradients(self, batch, displacement):
        def function(points):
            return self._batch_loss(batch, points), ()

        points = [ops.convert_to_tensor(d) for d in displacement]
        value, _, gradients = self._differentiate(function, points)
        return value, [
            ops.zeros_like(p) if g is None else ops.convert_to_tensor(g)
            for p, g in zip(points, gradients)
        ]

    def _variables(self):
        return [v.value for v in self.model.trainable_variables]


def _weighted(loss, y, y_pred, sample_weight):
    """The mean loss, of a `keras.losses.Loss` or of a function."""
    if isinstance(loss, keras.losses.Loss):
        return loss(y, y_pred, sample_weight)
    y = ops.convert_to_tensor(y)
    values = ops.cast(loss(y, y_pred), "float32")
    if sample_weight is not None:
        weights = ops.cast(sample_weight, "float32")
        shape = (-1, *(1 for _ in values.shape[1:]))
        values = values * ops.reshape(weights, shape)
    return ops.mean(values)


def _batches(data, batch_size):
    """`(x, y, sample_weight)` of each batch."""
    is_arrays = isinstance(data, tuple) and 2 <= len(data) <= 3
    if not is_arrays:
        source = data
        if isinstance(data, keras.utils.PyDataset):
            source = (data[i] for i in range(data.num_batches))
        for batch in source:
            yield keras.utils.unpack_x_y_sample_weight(batch)
        return
    x, y, *weight = data
    count = len(keras.tree.flatten(x)[0])
    for i in range(0, count, batch_size):
        yield tuple(
            keras.tree.map_structure(
                lambda a: None if a is None else a[i : i + batch_size], each
            )
            for each in (x, y, weight[0] if weight else None)
        )


def _number(tensor):
    return float(ops.convert_to_numpy(tensor))


def _size(batch):
    return int(keras.tree.flatten(batch[0])[0].shape[0])


def backend_differentiate():
    """`differentiate` of the backend, see `passes.run_pass`."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_saq.sharpness.tensorflow_step import differentiate
    elif backend == "jax":
        from keras_saq.sharpness.jax_step import differentiate
    else:
        from keras_saq.sharpness.torch_step import differentiate
    return differentiate


def _compiled(function):
    """Traces a method once per shape, where the backend can."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True, autograph=False)
    return function
