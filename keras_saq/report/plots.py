"""Plots, made with matplotlib where it is installed."""

import numpy as np

_COLORS = {"float": "#8a8f98", "qat": "#e08a3c", "saq": "#2f6db5"}


def require_matplotlib():
    """matplotlib.pyplot, drawing to files; raises if it is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed. Install it with "
            '`pip install "keras-saq[plot]"`.'
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_runs(table, path):
    """Accuracy and bytes of every file, one bar per variant.

    Args:
        table: a `RunTable`.
        path: the `.png` to write.
    """
    pyplot = require_matplotlib()
    labels = list(table.groups)
    colors = [_COLORS[runs[0].method] for runs in table.groups.values()]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(9, 3.6), layout="constrained"
    )
    accuracies = [
        [
            100
            * (
                run.keras_accuracy
                if run.file_accuracy is None
                else run.file_accuracy
            )
            for run in runs
        ]
        for runs in table.groups.values()
    ]
    means = [np.mean(values) for values in accuracies]
    spreads = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in accuracies]
    bars = left.bar(labels, means, color=colors)
    if any(spreads):
        left.errorbar(
            range(len(means)),
            means,
            spreads,
            fmt="none",
            color="black",
            capsize=4,
        )
    left.bar_label(
        bars, [f"{m:.1f}" for m in means], label_type="center", color="white"
    )
    low = min(m - s for m, s in zip(means, spreads))
    left.set_ylim(max(0.0, np.floor(low) - 2), 100)
    left.set_ylabel("test accuracy of the file (%)")
    left.set_title(
        "Accuracy" + (", mean ± standard deviation" if any(spreads) else "")
    )
    sizes = [
        np.mean([r.file_bytes for r in runs if r.file_bytes] or [0]) / 1e3
        for runs in table.groups.values()
    ]
    bars = right.bar(labels, sizes, color=colors)
    right.bar_label(bars, [f"{s:.1f}" for s in sizes], padding=2)
    right.margins(y=0.12)
    right.set_ylabel("size of the file (kB)")
    right.set_title("Size")
    for axes in (left, right):
        axes.tick_params(axis="x", rotation=20)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
