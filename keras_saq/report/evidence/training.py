"""Histories of trainings, whatever form they come in."""

import math
import numbers
import warnings

import keras


def by_run(history, label):
    """Dict from a run's name to its columns.

    Args:
        history: what `fit` returned, its `.history`, or a dict from names of
            runs to such; `None` for none.
        label: name of the run where there is one.

    Returns:
        Dict of dicts of lists, each with `"epoch"` counted from 1.

    Raises:
        ValueError: if it is none of that.

    Example:

    >>> from keras_saq.report.evidence.training import by_run
    >>> by_run({"loss": [2.0, 1.0]}, "SAQ")
    {'SAQ': {'epoch': [1, 2], 'loss': [2.0, 1.0]}}
    """
    if history is None:
        return {}
    if _is_history(history):
        history = {label: history}
    if not isinstance(history, dict) or not all(
        map(_is_history, history.values())
    ):
        raise ValueError(
            "`history` must be what `fit` returned, its `.history`, or a dict "
            "from names of runs to such. "
            f"Received: {history!r:.200} of type {type(history).__name__}"
        )
    return {str(name): _columns(run) for name, run in history.items()}


def _is_history(history):
    if isinstance(history, keras.callbacks.History):
        return True
    return isinstance(history, dict) and all(
        isinstance(column, (list, tuple)) for column in history.values()
    )


def _columns(run):
    epochs = None
    if isinstance(run, keras.callbacks.History):
        epochs, run = [e + 1 for e in run.epoch], run.history
    if "epoch" in run:
        epochs = [int(e) + 1 for e in run["epoch"]]
    columns = {
        name: [_number(v) for v in column]
        for name, column in run.items()
        if name != "epoch"
    }
    longest = max(map(len, columns.values()), default=0)
    if epochs is None or len(epochs) != longest:
        epochs = list(range(1, longest + 1))
    columns = {
        name: _spread(name, column, longest) for name, column in columns.items()
    }
    return {
        "epoch": epochs,
        **{
            name: column
            for name, column in columns.items()
            if any(v is not None for v in column)
        },
    }


def _spread(name, column, count):
    """A column with a place for each epoch.

    What is measured every k epochs has `count // k` values.
    """
    if len(column) == count or not column:
        return column
    every = [k for k in range(2, count + 1) if count // k == len(column)]
    if len(every) != 1:
        warnings.warn(
            f"The column '{name}' of the history has {len(column)} values for "
            f"{count} epochs, and nothing says for which. The report leaves "
            "it out.",
            stacklevel=2,
        )
        return []
    spread = [None] * count
    spread[every[0] - 1 :: every[0]] = column
    return spread


def _number(value):
    """A finite number, or `None`."""
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return None
