"""Knowledge distillation from the float model."""

import keras
from keras import ops


class Distillation:
    """Lets a quantized model also learn from a teacher's predictions.

    Source: Hinton et al., arXiv 1503.02531. With the logits z of the student
    and t of the teacher, temperature T and weight a, the loss becomes

        (1 - a) * loss + a * T^2 * KL(softmax(t / T) || softmax(z / T))

    averaged over the batch, with its sample weights. The teacher runs once
    per step, in inference mode, whatever the number of passes. It is not
    saved with the model: set `model.distillation` again after loading.

    Args:
        teacher: a Keras model with the inputs of the student.
        weight: a, from 0 to 1.
        temperature: T, above 0.
        from_logits: whether outputs are logits; `False` for probabilities.

    Raises:
        ValueError: if an argument is out of its range, or, in training, if
            teacher and student have outputs of different shapes.

    Example:

    >>> import keras, keras_saq
    >>> from keras_saq.sharpness import Distillation
    >>> inputs = keras.Input((8,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> teacher = Distillation(model, weight=0.5, temperature=4.0)
    >>> saq = keras_saq.SAQModel(q, rho=0.05, distillation=teacher)
    """

    def __init__(self, teacher, weight=0.5, temperature=4.0, from_logits=True):
        if not isinstance(teacher, keras.Model):
            raise ValueError(
                "`teacher` must be a `keras.Model`, usually the float model. "
                f"Received: {teacher!r} of type {type(teacher).__name__}"
            )
        if not 0 <= weight <= 1:
            raise ValueError(
                f"`weight` must be from 0 to 1. Received: weight={weight!r}"
            )
        if not 0 < temperature < float("inf"):
            raise ValueError(
                "`temperature` must be a finite number above 0. "
                f"Received: temperature={temperature!r}"
            )
        self.teacher = teacher
        self.weight = float(weight)
        self.temperature = float(temperature)
        self.from_logits = bool(from_logits)

    def targets(self, x):
        """The teacher's predictions, without gradient."""
        y = self.teacher(x, training=False)
        return keras.tree.map_structure(ops.stop_gradient, y)

    def __call__(self, loss, y_pred, targets, sample_weight=None):
        """The combined loss.

        Args:
            loss: the loss of the task, a scalar.
            y_pred: predictions, a tensor or a structure of them.
            targets: the teacher's, of the same structure.
            sample_weight: one weight per sample, or `None`.
        """
        students = keras.tree.flatten(y_pred)
        teachers = keras.tree.flatten(targets)
        if [tuple(s.shape) for s in students] != [
            tuple(t.shape) for t in teachers
        ]:
            raise ValueError(
                "The teacher must predict what the student predicts. "
                f"Expected shapes: {[tuple(s.shape) for s in students]}. "
                f"Received: {[tuple(t.shape) for t in teachers]}."
            )
        distance = softened_distance(
            y_pred, targets, self.temperature, self.from_logits, sample_weight
        )
        return (1 - self.weight) * loss + self.weight * ops.cast(
            distance, loss.dtype
        )


def softened_distance(
    y_pred, targets, temperature, from_logits=True, sample_weight=None
):
    """T^2 KL(softmax(targets / T) || softmax(y_pred / T)), over the batch.

    Args:
        y_pred: predictions, a tensor or a structure of them.
        targets: of the same structure.
        temperature: T.
        from_logits: whether both are logits; `False` for probabilities.
        sample_weight: one weight per sample, or `None`.
    """
    students = keras.tree.flatten(y_pred)
    weights = keras.tree.flatten(sample_weight)
    if len(weights) == 1:
        weights = weights * len(students)
    total = 0.0
    for student, target, weight in zip(
        students, keras.tree.flatten(targets), weights
    ):
        log_p = _log_softmax(target, temperature, from_logits)
        log_q = _log_softmax(student, temperature, from_logits)
        distance = ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
        axes = list(range(1, len(distance.shape)))
        distance = ops.mean(distance, axis=axes) if axes else distance
        if weight is not None:
            weight = ops.reshape(ops.cast(weight, "float32"), (-1,))
            distance = distance * weight
        total = total + temperature**2 * ops.mean(distance)
    return total


def _log_softmax(x, temperature, from_logits):
    x = ops.cast(x, "float32")
    if not from_logits:
        x = ops.log(ops.maximum(x, 1e-7))
    return ops.log_softmax(x / temperature, axis=-1)
