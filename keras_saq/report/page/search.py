"""How the bits were chosen: budget, front, bits."""

from keras_saq.report.page import charts
from keras_saq.report.page import numbers
from keras_saq.report.page import strips
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import legend
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import places
from keras_saq.report.page.markup import table
from keras_saq.report.page.markup import tag
from keras_saq.report.search_plots import UNITS

TITLE = "Search for the bits"


def render(report):
    """The section, or `None` without a search."""
    found = report.get("search")
    if found is None:
        return None
    return join(
        [
            *_front(found.get("front")),
            *_others(found.get("other_in_model")),
            *_policy(found.get("provenance")),
        ]
    )


def _front(front):
    if front is None:
        return
    yield paragraph(
        "Each dot is a policy, found for another budget. Those on the line "
        "are the best: no cheaper one is as accurate. The accuracy is that of "
        "the network that the search trains, before any fine-tuning: good for "
        "comparing, not for reporting."
    )
    yield legend([("s0", "Pareto front"), ("float", "another is better")])
    figures = []
    for name, best in front["best"].items():
        label, unit = UNITS.get(name, (name, 1.0))
        points = [
            (p["cost"][name] / unit, 100 * p["accuracy"])
            for p in front["points"]
        ]
        if len({x for x, _ in points}) > 1:
            figures.append(
                charts.front(f"Accuracy over {label}", label, points, best)
            )
    yield charts.plots(figures)


def _others(names):
    if not names:
        return
    layers = numbers.plural(len(names), "layer")
    yield tag(
        "div",
        "Mind: the model on this page was not made with this policy. The "
        f"policy chose other bits for {layers}: ",
        places(names),
        class_="warn",
    )


def _policy(found):
    if found is None:
        return
    proxy = found.get("proxy") or {}
    data = ""
    if proxy.get("samples"):
        data = f" on {numbers.plural(proxy['samples'], 'sample')}"
        if proxy.get("name") not in (None, "tuple"):
            data += f" of {proxy['name']}"
    yield paragraph(
        f"The method “{found['method']}” chose the bits below in "
        f"{numbers.short(found['seconds'], 3)} seconds{data}, so that all "
        "limits are met."
    )
    yield table(
        "What the chosen policy costs",
        ("cost", "value", "limit"),
        [
            (
                UNITS.get(name, (name, 1.0))[0],
                _in_units(name, value),
                _in_units(name, found["limits"].get(name)),
            )
            for name, value in found["cost"].items()
        ],
    )
    layers = {}
    for name, bits in found["bits"].items():
        layer, what = name.rsplit(" ", 1)
        layers.setdefault(layer, {})[what] = bits
    top = max([8, *found["bits"].values()])
    for what, caption, color in (
        ("weights", "bits chosen for the weights", 0),
        ("input", "bits chosen for what the layer reads", 1),
    ):
        yield strips.bars(
            f"{caption}, by number in the table below; no bar: not searched",
            [entry.get(what, 0) for entry in layers.values()],
            [
                f"{i}. {layer}: {entry.get(what, 'not searched')}"
                for i, (layer, entry) in enumerate(layers.items(), 1)
            ],
            list(range(0, top + 1, max(2, top // 4))),
            color,
            top,
        )
    scores = found.get("scores", {})
    yield details(
        f"Table of the {len(found['bits'])} choices",
        table(
            "Bits and the score of each candidate; a higher score is better",
            ("no.", "what", "bits", "scores"),
            [
                (_number(layers, name), name, bits, _scores(scores.get(name)))
                for name, bits in found["bits"].items()
            ],
            num_text=2,
        ),
    )


def _number(layers, name):
    return list(layers).index(name.rsplit(" ", 1)[0]) + 1


def _in_units(name, value):
    if value is None:
        return "none"
    return numbers.short(value / UNITS.get(name, (name, 1.0))[1])


def _scores(scores):
    if not scores:
        return numbers.NONE
    return "; ".join(
        f"{bits} bits {numbers.short(score, 3)}"
        for bits, score in scores.items()
    )
