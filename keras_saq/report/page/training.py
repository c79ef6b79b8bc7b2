"""Training curves, one plot per quantity, all runs in each."""

from keras_saq.report.page import charts
from keras_saq.report.page import numbers
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import table

TITLE = "Training and results"
# What callbacks measure: title, unit, what it tells.
_KNOWN = {
    "code_flip_rate": (
        "Codes that flipped",
        "weights (%)",
        "Share of weights whose integer code changed since the last "
        "measurement. It should fall: weights that keep jumping between two "
        "codes have not settled.",
    ),
    "weight_scale": (
        "Scale of the weights",
        "mean scale (units of the weights)",
        "Geometric mean over all layers.",
    ),
    "activation_scale": (
        "Scale of the activations",
        "mean scale (units of the activations)",
        "Geometric mean over all tensors.",
    ),
    "weight_bits": ("Bits per weight", "bits, on average", None),
    "sharpness": (
        "Sharpness",
        "rise of the loss",
        "By how much the loss rises at the worst place close by. Lower is "
        "flatter, which rounding disturbs less.",
    ),
    "gradient_norm": ("Norm of the gradient", "norm", None),
    "learning_rate": ("Learning rate", "learning rate", None),
}
_CONSTANT = ("weight_bits",)


def render(report):
    """The section, or `None` without a history and without results."""
    runs = {
        name: run
        for name, run in report.get("training", {}).items()
        if len(run) > 1  # there is more than the numbers of the epochs
    }
    parts = [_curves(report, runs)] if runs else []
    results = _results(report)
    if results is not None:
        parts.append(results)
    if runs:
        title = "Table of all epochs"
        parts.append(details(title, *map(_run_table, runs.items())))
    return join(parts) if parts else None


def _curves(report, runs):
    has_validation = any(
        f"val_{name}" in run for run in runs.values() for name in run
    )
    figures = [
        _figure(base, runs, report["colors"]) for base in _quantities(runs)
    ]
    return join(
        [
            _INTRODUCTION,
            charts.run_legend(
                {n: report["colors"][n] for n in runs},
                "on the training data" if has_validation else None,
            ),
            charts.plots(f for f in figures if f is not None),
        ]
    )


_INTRODUCTION = paragraph(
    "One epoch is one pass over the training data. Where there is a solid and "
    "a dashed line, the solid one is measured on data that training does not "
    "see; what counts is that one."
)


def _quantities(runs):
    """Names of what was measured, without `val_`, each once."""
    found = {}
    for run in runs.values():
        for name in run:
            if name != "epoch":
                found.setdefault(name.removeprefix("val_"))
    first = [n for n in found if n == "loss"]
    return first + [n for n in found if n != "loss"]


def _figure(base, runs, colors):
    title, unit, note = _KNOWN.get(
        base,
        (base.replace("_", " ").capitalize(), base.replace("_", " "), None),
    )
    factor = 1.0
    if numbers.is_share(base):
        factor = 100.0
        unit = unit if "%" in unit else f"{unit} (%)"
    if base == "loss":
        unit = "loss"
    series = []
    for name, run in runs.items():
        for key, is_dashed in ((f"val_{base}", False), (base, True)):
            if key in run:
                ys = [None if v is None else factor * v for v in run[key]]
                is_dashed = is_dashed and f"val_{base}" in run
                series.append((name, colors[name], is_dashed, run["epoch"], ys))
    values = {y for *_, ys in series for y in ys if y is not None}
    if base in _CONSTANT and len(values) == 1:
        return None  # the bits of this model do not change
    return charts.curves(title, series, "epoch", unit, note)


def _results(report):
    """A table of all that was measured, or `None`."""
    recorded = report.get("metrics", {})
    measured = report.get("accuracy", {"by_model": {}})
    labels = list(dict.fromkeys([*measured["by_model"], *recorded]))
    if not labels:
        return None
    names = list(dict.fromkeys(n for row in recorded.values() for n in row))
    header = ["model"]
    if measured["by_model"]:
        header.append(f"top-1, {numbers.samples(report, measured['samples'])}")
    rows = []
    for label in labels:
        row = [label]
        if measured["by_model"]:
            row.append(numbers.percent(measured["by_model"].get(label)))
        values = recorded.get(label, {})
        row += [numbers.metric(name, values.get(name)) for name in names]
        rows.append(row)
    header += [f"{n.replace('_', ' ')}, recorded" for n in names]
    return table(
        "Results; what is called recorded was measured before, by the training "
        "or by whoever made this report",
        header,
        rows,
    )


def _run_table(item):
    name, run = item
    keys = [key for key in run if key != "epoch"]
    return table(
        f"{name}, each epoch",
        ("epoch", *(k.replace("_", " ") for k in keys)),
        [
            (epoch, *(numbers.short(run[k][i], 5) for k in keys))
            for i, epoch in enumerate(run["epoch"])
        ],
        num_text=0,
    )
