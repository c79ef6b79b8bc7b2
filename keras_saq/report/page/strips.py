"""One bar per layer, over the whole width of the page.

The bars are stretched to the width that there is; all text is HTML beside
them, so that it stays readable on a phone, and names of layers are in the
table below, found by number.
"""

import math

from keras_saq.report.page import axes
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import shape
from keras_saq.report.page.markup import tag

_STEP = 10  # width of a layer in the picture's own units


def bars(caption, values, titles, ticks, color, top, is_float=None):
    """A strip of bars.

    Args:
        caption: what is shown, with the unit.
        values: one number per layer.
        titles: what the pointer shows on each.
        ticks: numbers on the vertical axis.
        color: number of the colour.
        top: value at the upper edge; bars are cut off there.
        is_float: for each layer, whether its bar is gray and full.
    """
    drawn = []
    for i, (value, title) in enumerate(zip(values, titles)):
        gray = is_float is not None and is_float[i]
        height = 100.0 if gray else 100.0 * min(value, top) / top
        drawn.append(
            tag(
                "rect",
                tag("title", title),
                class_="float" if gray else f"s{color}",
                x=axes.number(_STEP * i + 1),
                y=f"{100 - height:.1f}",
                width=_STEP - 2,
                height=f"{height:.1f}",
            )
        )
    places = [(tick, 100.0 * tick / top) for tick in ticks]
    return _strip(caption, len(values), places, drawn)


def ranges(caption, entries, color):
    """A strip of lines from smallest to largest, logarithmic.

    Args:
        caption: what is shown, with the unit.
        entries: `(low, middle, high, title)` per layer, all above 0.
        color: number of the colour.
    """
    low = min(entry[0] for entry in entries) / 1.3
    high = max(entry[2] for entry in entries) * 1.3

    def height(value):
        return 100 * math.log(value / low) / math.log(high / low)

    drawn = []
    for i, (first, middle, last, title) in enumerate(entries):
        x = _STEP * (i + 0.5)
        y = 100 - height(middle)
        drawn.append(
            tag(
                "g",
                tag("title", title),
                shape(
                    "path",
                    class_=f"range s{color}",
                    d=f"M{x:g} {100 - height(first):.1f}"
                    f"V{100 - height(last):.1f}",
                ),
                shape(
                    "rect",
                    class_=f"s{color}",
                    x=f"{x - 1:g}",
                    y=f"{y - 2:.1f}",
                    width=2,
                    height=4,
                ),
            )
        )
    places = [(t, height(t)) for t in axes.powers(low, high)]
    return _strip(caption, len(entries), places, drawn)


def _strip(caption, count, places, drawn):
    width = _STEP * count
    grid = "".join(f"M0 {100 - y:.1f}H{width}" for _, y in places)
    picture = tag(
        "svg",
        shape("path", class_="grid", d=grid),
        *drawn,
        viewBox=f"0 0 {width} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{caption}, for {count} layers; the numbers are in the "
        "table below",
    )
    scale = [
        tag("span", f"{tick:g}", style=f"bottom:{y:.1f}%") for tick, y in places
    ]
    numbers = [
        tag("span", i + 1, style=f"left:{100 * (i + 0.5) / count:.2f}%")
        for i in _numbered(count)
    ]
    return tag(
        "figure",
        tag("figcaption", caption),
        tag("div", *scale, class_="scale", aria_hidden="true"),
        picture,
        tag("div", *numbers, class_="places", aria_hidden="true"),
        class_="strip",
    )


def _numbered(count):
    """Indices of the layers whose number stands below the axis."""
    if count <= 10:
        return range(count)
    step = next(s for s in (2, 5, 10, 20, 50, 100, 200, 500) if count / s <= 8)
    return [0, *range(step - 1, count, step)]


def split(parts, description):
    """A bar in pieces: `(css class, share)` from left to right."""
    drawn, x = [], 0.0
    for name, share in parts:
        drawn.append(
            shape(
                "rect",
                class_=name,
                x=f"{1000 * x:.1f}",
                y=0,
                width=f"{1000 * share:.1f}",
                height=10,
            )
        )
        x += share
    return tag(
        "svg",
        join(drawn),
        viewBox="0 0 1000 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=description,
        class_="split",
    )
