"""Plots of a search: who got which bits, and accuracy against cost."""

import numpy as np

from keras_saq.report.plots import require_matplotlib

_WEIGHTS, _INPUTS = "#2f6db5", "#e08a3c"
_GRAY = "#8a8f98"
UNITS = {
    "bops": ("bit operations (M)", 1e6),
    "bytes": ("file (kB)", 1e3),
    "stored_bytes": ("stored (kB)", 1e3),
    "activation_bytes": ("activations, peak (kB)", 1e3),
    "average_bits": ("bits per weight", 1.0),
    "latency": ("latency (ms)", 1e-3),
}


def plot_bits(policy, path):
    """Bits of the weights and of the input of every searched layer.

    Args:
        policy: a policy from `keras_saq.search_policy`.
        path: the `.png` to write.
    """
    found = policy.provenance or {}
    if not found.get("bits"):
        raise ValueError(
            "Only a policy that a search made says which bits it gave to "
            "whom. Received: a policy without provenance"
        )
    layers = {}
    for name, bits in found["bits"].items():
        layer, what = name.rsplit(" ", 1)
        layers.setdefault(layer, {})[what] = bits
    pyplot = require_matplotlib()
    width = min(max(5.0, 0.42 * len(layers) + 1.5), 24.0)
    figure, axes = pyplot.subplots(figsize=(width, 3.8), layout="constrained")
    places = np.arange(len(layers))
    for shift, what, color in (
        (-0.2, "weights", _WEIGHTS),
        (0.2, "input", _INPUTS),
    ):
        bits = [entry.get(what, 0) for entry in layers.values()]
        axes.bar(places + shift, bits, 0.38, color=color, label=what)
    axes.set_xticks(places, layers, rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("bits")
    axes.set_yticks(range(0, 1 + max(found["bits"].values())))
    axes.set_title(
        f"{found['method']}\n{_cost_text(found)}", fontsize=9, loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper right",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def plot_front(points, path, cost="bops"):
    """Accuracy against cost, the best of all costs joined by a line.

    Args:
        points: what `PolicySearch.front` returns.
        path: the `.png` to write.
        cost: which cost is on the horizontal axis.
    """
    pyplot = require_matplotlib()
    label, unit = UNITS[cost]
    x = np.array([point.cost[cost] / unit for point in points])
    y = np.array([100 * point.accuracy for point in points])
    best = pareto(x, y)
    figure, axes = pyplot.subplots(figsize=(5.4, 3.8), layout="constrained")
    axes.plot(x[best], y[best], "o-", color=_WEIGHTS, label="Pareto front")
    rest = np.setdiff1d(np.arange(len(x)), best)
    if len(rest):
        axes.plot(x[rest], y[rest], "o", color=_GRAY, label="dominated")
        axes.legend(frameon=False)
    for a, b in zip(x, y):
        axes.annotate(
            f"{b:.1f}",
            (a, b),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.margins(0.1, 0.15)
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy in the supernet (%)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def plot_probabilities(search, path):
    """How the expected bits of every group moved, epoch by epoch.

    Args:
        search: a `PolicySearch` after `fit` with `"seam"` or `"ce"`.
        path: the `.png` to write.
    """
    if not search.probabilities:
        raise ValueError(
            "Only the methods 'seam' and 'ce' have probabilities, after "
            f"`fit`. Received: a search with method={search.method!r}"
        )
    pyplot = require_matplotlib()
    figure, axes = pyplot.subplots(
        1, 2, figsize=(9, 3.8), layout="constrained", sharey=True
    )
    for kind, color, axis in zip(
        ("weights", "activations"), (_WEIGHTS, _INPUTS), axes
    ):
        for i, group in enumerate(search.space.groups):
            if group.kind != kind or len(group.bits) == 1:
                continue
            curve = [
                np.dot(epoch[i], group.bits) for epoch in search.probabilities
            ]
            epochs = range(1, len(curve) + 1)
            axis.plot(epochs, curve, color=color, alpha=0.6, linewidth=1)
            axis.annotate(
                group.paths[0],
                (len(curve), curve[-1]),
                fontsize=6,
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
            )
        axis.set_xlabel("epoch")
        axis.set_title(
            "weights" if kind == "weights" else "layer inputs", fontsize=10
        )
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("expected bits")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def pareto(costs, values):
    """Indices of the points that nothing cheaper reaches, by cost.

    Example:

    >>> from keras_saq.report.search_plots import pareto
    >>> pareto([1, 2, 3, 4], [50, 70, 60, 80]).tolist()
    [0, 1, 3]
    """
    order = np.lexsort((-np.asarray(values), np.asarray(costs)))
    best, found = -np.inf, []
    for i in order:
        if values[i] > best:
            best = values[i]
            found.append(i)
    return np.array(found, int)


def _cost_text(found):
    parts = []
    for name, limit in found["limits"].items():
        label, unit = UNITS[name]
        value = found["cost"][name] / unit
        parts.append(f"{label} {value:.4g} of {limit / unit:.4g}")
    return "\n".join(parts)
