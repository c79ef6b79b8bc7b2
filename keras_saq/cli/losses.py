"""Which loss fits the labels and the outputs."""

import dataclasses

import keras
import numpy as np

from keras_saq.layers import kinds

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
        return _soft_classes(model, labels)
    if kind == "mse" or (
        kind == "auto" and not np.issubdtype(labels.dtype, np.integer)
    ):
        return _regression(outputs, labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "Classes need integer labels. Received labels of type "
            f"{labels.dtype}."
        )
    activation = last_activation(model)
    if outputs[-1] == 1:
        _check_range(labels, 2)
        loss = keras.losses.BinaryCrossentropy(
            from_logits=activation != "sigmoid"
        )
        labels_are = "labels 0 and 1"
    elif len(outputs) == labels.ndim + 1:
        _check_range(labels, outputs[-1])
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=activation != "softmax"
        )
        labels_are = f"integer labels, {outputs[-1]} outputs"
    else:
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit outputs of shape "
            f"{(len(labels), *outputs[1:])}: a class is one integer for a "
            "vector of outputs."
        )
    from_logits = loss.from_logits
    what = "logits" if from_logits else f"the probabilities of {activation}"
    reason = f"{type(loss).__name__} on {what} ({labels_are})"
    num_classes = max(2, outputs[-1])
    return Objective(loss, "accuracy", True, reason, from_logits, num_classes)


def _are_probabilities(labels, outputs):
    """Whether labels are a probability per class, such as one-hot ones."""
    return (
        labels.ndim == len(outputs) > 1
        and labels.shape[1:] == tuple(outputs[1:])
        and outputs[-1] > 1
        and labels.min() >= 0
        and np.allclose(labels.sum(-1), 1, atol=1e-3)
    )


def _soft_classes(model, labels):
    activation = last_activation(model)
    from_logits = activation != "softmax"
    what = "logits" if from_logits else "the probabilities of softmax"
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


def last_activation(model):
    """`"softmax"`, `"sigmoid"` or `""`: what a model's output comes out of."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        # A class of its own: the layer that it calls last, as it declares it.
        layers = [x for x in model._flatten_layers() if _own_activation(x)]
        return _own_activation(layers[-1]) if layers else ""
    tensor = outputs[0]
    while True:
        operation, node, _ = tensor._keras_history
        if isinstance(operation, keras.Model) and operation.outputs:
            tensor = operation.outputs[0]
            continue
        name = _own_activation(operation)
        if name or not kinds.is_transparent(operation):
            return name
        inputs = operation._inbound_nodes[node].input_tensors
        if not inputs:
            return ""
        tensor = inputs[0]


def _own_activation(operation):
    if kinds.is_softmax(operation):
        return "softmax"
    name = kinds.operation_name(operation).lower()
    # A quantized layer has a function around its own.
    activation = getattr(operation, "_float_activation", None) or getattr(
        operation, "activation", None
    )
    if not name and activation is not None:
        name = getattr(activation, "__name__", "")
    return name if name in ("softmax", "sigmoid") else ""
