"""Top-1 accuracy of models and files on given data."""

import numpy as np
from keras import ops
from keras import tree

from keras_saq.models.wrapper import inner_model


def measure(models, x, y, batch_size, parity=None):
    """Dict from a label to its accuracy; empty where labels are no classes.

    Args:
        models: dict from labels to models.
        x: inputs, as for `predict`.
        y: labels.
        batch_size: of the prediction.
        parity: a `ParityReport` on the same data, for the file's accuracy.
    """
    y = np.asarray(ops.convert_to_numpy(y)) if not _is_nested(y) else None
    found = {}
    for label, model in models.items():
        outputs = inner_model(model).predict(
            x, batch_size=batch_size, verbose=0
        )
        found[label] = top1(tree.flatten(outputs), y)
    if parity is not None and len(parity.outputs):
        found["file"] = top1(parity.outputs, y)
    return {label: value for label, value in found.items() if value is not None}


def _is_nested(y):
    return isinstance(y, (dict, list, tuple))


def top1(outputs, y):
    """Share of the largest outputs that are at the label.

    Args:
        outputs: list of arrays, one per output of a model.
        y: labels, or `None`.

    Returns:
        A float, or `None` where there are several outputs, or labels that
        are neither classes nor one-hot vectors.

    Example:

    >>> import numpy as np
    >>> from keras_saq.report.evidence.accuracy import top1
    >>> top1([np.eye(2)], np.array([0, 0])), top1([np.eye(2)], np.eye(2))
    (0.5, 1.0)
    """
    if y is None or len(outputs) != 1 or outputs[0].shape[-1] < 2:
        return None
    (output,) = outputs
    if y.shape == (*output.shape[:-1], 1) and output.shape[-1] != 1:
        y = y[..., 0]
    if y.shape == output.shape and _is_one_hot(y):
        y = y.argmax(axis=-1)
    elif y.shape != output.shape[:-1] or not np.issubdtype(y.dtype, np.integer):
        return None
    return float(np.mean(output.argmax(axis=-1) == y))


def _is_one_hot(y):
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=-1) == 1).all())
