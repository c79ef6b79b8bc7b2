"""Which loss fits the labels and the outputs."""

import dataclasses

import keras
import numpy as np

from keras_saq.cli import activations

LOSSES = ("auto", "classes", "mse")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss, its metric, and why.

    Attributes:
        loss: the Keras loss.
        metric: name of the metric beside it.
        larger_is_better: of the metric.
        reason: a sentence for people.
        from_logits: whether the outputs are logits.
        num_classes: that the outputs tell apart; 0 for numbers.
    """

    loss: keras.losses.Loss
    metric: str
    larger_is_better: bool
    reason: str
    from_logits: bool = False
    num_classes: int = 0

    def make_metric(self):
        """What `compile` gets: accuracy of one logit is decided at 0."""
        binary = isinstance(self.loss, keras.losses.BinaryCrossentropy)
        if not binary:
            return self.metric
        return keras.metrics.MeanMetricWrapper(
            keras.metrics.binary_accuracy,
            name=self.metric,
            threshold=0.0 if self.from_logits else 0.5,
        )


def choose(model, samples, kind="auto"):
    """The objective for a model and labels.

    Args:
        model: the model.
        samples: the training samples.
        kind: `"auto"`, `"classes"` or `"mse"`.

    Raises:
        ValueError: if the labels do not fit the outputs.
    """
    outputs = _output_shape(model, samples)
    labels = samples.y
    if kind != "mse" and _are_probabilities(labels, outputs):
        return _soft_classes(_activation(model, samples), labels)
    if kind == "mse" or (
        kind == "auto" and not np.issubdtype(labels.dtype, np.integer)
    ):
        return _regression(outputs, labels)
    if not _are_whole(labels):
        raise ValueError(
            "Classes need integer labels. Received labels of type "
            f"{labels.dtype}."
        )
    activation = _activation(model, samples)
    from_logits = not activation
    if outputs[-1] == 1:
        _check_range(labels, 2)
        loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
        labels_are = "labels 0 and 1"
    elif len(outputs) == labels.ndim + 1:
        _check_range(labels, outputs[-1])
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=from_logits
        )
        labels_are = f"integer labels, {outputs[-1]} outputs"
    else:
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit outputs of shape "
            f"{(len(labels), *outputs[1:])}: a class is one integer for a "
            "vector of outputs."
        )
    what = "logits" if from_logits else f"the probabilities of {activation}"
    reason = f"{type(loss).__name__} on {what} ({labels_are})"
    num_classes = max(2, outputs[-1])
    return Objective(loss, "accuracy", True, reason, from_logits, num_classes)


def check_labels(objective, samples, flag):
    """Refuses labels of held-out or test data that do not fit the loss.

    Args:
        objective: what `choose` returned.
        samples: the samples.
        flag: of the command line, which chose them.

    Raises:
        ValueError: if a label is out of the range of the classes.
    """
    labels, count = samples.y, objective.num_classes
    if not count:
        return
    soft = keras.losses.CategoricalCrossentropy
    try:
        if isinstance(objective.loss, soft):
            if not _are_probabilities(labels, (None, *labels.shape[1:])):
                raise ValueError(
                    f"Labels must be a probability for each of {count} "
                    f"classes. Received: labels of shape {labels.shape}."
                )
        elif not _are_whole(labels):
            raise ValueError(
                "Classes need integer labels. Received labels of type "
                f"{labels.dtype}."
            )
        else:
            _check_range(labels, count)
    except ValueError as error:
        raise ValueError(
            f"The samples of `{flag}` do not fit: {error}"
        ) from error


def require_same_kind(model, teacher, samples, objective):
    """Refuses a teacher whose outputs are not of the student's kind.

    Raises:
        ValueError: if there are fewer than two classes, or if one has logits
            and the other probabilities.
    """
    outputs = _output_shape(model, samples)
    if not objective.num_classes or outputs[-1] < 2:
        raise ValueError(
            "`--teacher` is for classes, with an output for each. The model "
            f"'{model.name}' has outputs of shape {outputs[1:]}, and the loss "
            f"is {objective.reason}. Leave `--teacher` out."
        )
    names = [_activation(m, samples) for m in (model, teacher)]
    if bool(names[0]) != bool(names[1]):
        student, other = (
            f"{n} probabilities" if n else "logits" for n in names
        )
        raise ValueError(
            f"The model '{model.name}' has {student} as outputs, and the "
            f"teacher '{teacher.name}' {other}. Give a teacher with the same."
        )


def _activation(model, samples):
    return activations.last_activation(model, samples.x.shape[1:])


def _are_whole(labels):
    return np.issubdtype(labels.dtype, np.integer) or bool(
        np.equal(labels, np.round(labels)).all()
    )


def _are_probabilities(labels, outputs):
    """Whether labels are a probability per class, such as one-hot ones."""
    return (
        labels.ndim == len(outputs) > 1
        and labels.shape[1:] == tuple(outputs[1:])
        and outputs[-1] > 1
        and labels.min() >= 0
        and np.allclose(labels.sum(-1), 1, atol=1e-3)
    )


def _soft_classes(activation, labels):
    from_logits = not activation
    what = "logits" if from_logits else f"the probabilities of {activation}"
    return Objective(
        keras.losses.CategoricalCrossentropy(from_logits=from_logits),
        "accuracy",
        True,
        f"CategoricalCrossentropy on {what} (a probability for each of "
        f"{labels.shape[-1]} classes)",
        from_logits,
        labels.shape[-1],
    )


def _regression(outputs, labels):
    shape = labels.shape if labels.ndim > 1 else (*labels.shape, 1)
    if tuple(shape[1:]) != tuple(outputs[1:]):
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit outputs of shape "
            f"{(len(labels), *outputs[1:])}, of which the mean squared error "
            "would be taken."
        )
    reason = f"MeanSquaredError ({labels.dtype} labels)"
    return Objective(
        keras.losses.MeanSquaredError(), "mean_absolute_error", False, reason
    )


def _check_range(labels, count):
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= count:
        raise ValueError(
            f"Labels must be from 0 to {count - 1}: the model has {count} "
            f"classes. Received labels from {low} to {high}. If they count "
            "from 1, subtract 1; if there are more classes, give the model "
            "another last layer."
        )


def _output_shape(model, samples):
    outputs = getattr(model, "outputs", None)
    if outputs is not None and len(outputs) > 1:
        raise ValueError(
            f"The model '{model.name}' has {len(outputs)} outputs. The command "
            "line trains models with one; train it in Python: "
            "`keras_saq.SAQModel(model).fit(...)`."
        )
    if outputs:
        shape = tuple(outputs[0].shape)
    else:
        x = keras.KerasTensor((1, *samples.x.shape[1:]), "float32")
        shape = tuple(model.compute_output_spec(x).shape)
    return shape if len(shape) > 1 else (*shape, 1)
