"""Plots that stand side by side: curves, histograms, points, landscapes."""

import numpy as np

from keras_saq.report.page import axes
from keras_saq.report.page.axes import Frame
from keras_saq.report.page.axes import number
from keras_saq.report.page.markup import breakable
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import legend
from keras_saq.report.page.markup import shape
from keras_saq.report.page.markup import tag
from keras_saq.report.page.style import HEAT

COLORS = 6
_MARKED = 20  # with so few points each gets a dot
_FINE = 6  # points drawn for each computed one of a landscape


def figure(title, picture, *notes):
    """A picture with its title above and notes below."""
    notes = [note for note in notes if note]
    below = [tag("figcaption", *notes)] if notes else []
    return tag("figure", tag("h4", breakable(title)), picture, *below)


def plots(figures):
    """Figures side by side, as many as there is room for."""
    return tag("div", *figures, class_="plots")


def curves(title, series, x_label, y_label, note=None):
    """Lines over a common axis.

    Args:
        title: of the figure.
        series: list of `(name, color, is_dashed, xs, ys)`; a `None` among the
            ys is a gap.
        x_label, y_label: with the units.
        note: a sentence below.
    """
    xs = [x for *_, xs, ys in series for x, y in zip(xs, ys) if y is not None]
    ys = [y for *_, values in series for y in values if y is not None]
    y_range = axes.padded(ys)
    y_ticks = _share_ticks(y_range, y_label)
    if isinstance(xs[0], int):
        frame = Frame(
            (min(xs), max(xs)) if min(xs) < max(xs) else (xs[0] - 1, xs[0] + 1),
            y_range,
            x_label,
            y_label,
            x_ticks=axes.whole_ticks(min(xs), max(xs)),
            y_ticks=y_ticks,
        )
    else:
        frame = Frame(
            axes.padded(xs),
            y_range,
            x_label,
            y_label,
            y_ticks=y_ticks,
        )
    drawn = [
        _curve(frame, color, is_dashed, xs, ys)
        for _, color, is_dashed, xs, ys in series
    ]
    names = ", ".join(dict.fromkeys(name for name, *_ in series))
    return figure(
        title,
        frame.draw(f"{title}: {y_label} over {x_label}; {names}", *drawn),
        note,
    )


def _share_ticks(y_range, y_label):
    """Ticks at round numbers; no share is above 100 %, or below 0."""
    found = axes.ticks(*y_range)
    if "%" in y_label:
        found = [tick for tick in found if 0 <= tick <= 100]
    return found


def _curve(frame, color, is_dashed, xs, ys):
    path, pen_is_down = [], False
    known = [(x, y) for x, y in zip(xs, ys) if y is not None]
    for x, y in zip(xs, ys):
        if y is not None:
            letter = "L" if pen_is_down else "M"
            path.append(f"{letter}{number(frame.x(x))} {number(frame.y(y))}")
        pen_is_down = y is not None
    dashed = " dashed" if is_dashed else ""
    parts = [
        shape("path", class_=f"curve s{color}{dashed}", d="".join(path)),
    ]
    marked = known if len(known) <= _MARKED else known[-1:]
    parts += [
        shape(
            "circle",
            class_=f"s{color}",
            cx=number(frame.x(x)),
            cy=number(frame.y(y)),
            r=2 if is_dashed else 2.6,
        )
        for x, y in marked
    ]
    return join(parts)


def histogram(title, x_label, edges, shares, outline=None, note=None):
    """Bars, and over them a finer histogram of the same kind.

    Args:
        title: of the figure.
        x_label: what is on the horizontal axis.
        edges: of the bars, one more than there are bars.
        shares: height of each bar, in percent.
        outline: `(edges, heights)` of the finer one, or `None`.
        note: a sentence below.
    """
    tops = [*shares, *(outline[1] if outline else ())]
    low, high = edges[0], edges[-1]
    if outline:
        low, high = min(low, outline[0][0]), max(high, outline[0][-1])
    frame = Frame(
        (low, high),
        (0, 1.05 * (max(tops) or 1.0)),
        x_label,
        "weights (%)",
        x_ticks=axes.whole_ticks(low, high),
        height=180,
    )
    bars = []
    gap = 0.08 * (edges[1] - edges[0])
    for left, right, share in zip(edges, edges[1:], shares):
        if share:
            x0, x1 = frame.x(left + gap), frame.x(right - gap)
            bars.append(
                f"M{number(x0)} {number(frame.bottom)}V"
                f"{number(frame.y(share))}H{number(x1)}V{number(frame.bottom)}z"
            )
    content = [shape("path", class_="bars", d="".join(bars))]
    if outline:
        content.append(
            shape("path", class_="outline", d=_stairs(frame, *outline))
        )
    return figure(title, frame.draw(f"Histogram of {title}", *content), note)


def _stairs(frame, edges, heights):
    path = [f"M{number(frame.x(edges[0]))} {number(frame.bottom)}"]
    for right, height in zip(edges[1:], heights):
        path.append(f"V{number(frame.y(height))}H{number(frame.x(right))}")
    return "".join([*path, f"V{number(frame.bottom)}"])


def front(title, x_label, points, best, note=None):
    """Accuracy against cost; the best points are joined.

    Args:
        title: of the figure.
        x_label: the cost, with its unit.
        points: list of `(cost, accuracy in percent)`.
        best: numbers of the points on the front, by cost.
        note: a sentence below.
    """
    values = [y for _, y in points]
    y_range = axes.padded(values, 0.15)
    if len(set(values)) == 1:
        y_range = values[0] - 2, values[0] + 2
    y_label = "accuracy in the supernet (%)"
    frame = Frame(
        axes.padded([x for x, _ in points], 0.1),
        y_range,
        x_label,
        y_label,
        y_ticks=_share_ticks(y_range, y_label),
    )
    places = [(frame.x(x), frame.y(y)) for x, y in points]
    line = "L".join(
        f"{number(places[i][0])} {number(places[i][1])}" for i in best
    )
    content = [shape("path", class_="curve s0", d=f"M{line}")]
    for i, (x, y) in enumerate(places):
        content.append(
            tag(
                "circle",
                tag("title", f"{points[i][0]:.4g}: {points[i][1]:.2f} %"),
                class_="s0" if i in best else "float",
                cx=number(x),
                cy=number(y),
                r=4,
            )
        )
    return figure(
        title, frame.draw(f"{title}: accuracy over {x_label}", *content), note
    )


def landscape(title, steps, losses, low, high, note=None):
    """A loss over two directions as a coloured map with a colour bar.

    Args:
        title: of the figure.
        steps: positions along a direction.
        losses: list of lists, the first direction first.
        low, high: losses at the ends of the colours.
        note: a sentence below.
    """
    values = _finer(_finer(np.array(losses, float)).T)  # rows: direction 2
    size = len(values)
    span = (steps[0], steps[-1])
    frame = Frame(
        span,
        span,
        "step along direction 1",
        "direction 2",
        right=74,
        height=285,
    )
    width = (frame.right - frame.left) / size
    height = (frame.bottom - frame.top) / size
    share = (values - low) / ((high - low) or 1.0)
    levels = np.clip((share * len(HEAT)).astype(int), 0, len(HEAT) - 1)
    paths = {}
    for row in range(size):
        y = frame.bottom - (row + 1) * height
        start = 0
        for stop in range(1, size + 1):
            if stop < size and levels[row, stop] == levels[row, start]:
                continue
            x = frame.left + start * width
            paths.setdefault(int(levels[row, start]), []).append(
                f"M{x:.1f} {y:.1f}H{frame.left + stop * width:.1f}"
                f"V{y + height:.1f}H{x:.1f}z"
            )
            start = stop
    content = [
        shape("path", class_=f"heat h{level}", d="".join(parts))
        for level, parts in sorted(paths.items())
    ]
    middle = (frame.left + frame.right) / 2, (frame.top + frame.bottom) / 2
    content.append(
        shape(
            "circle",
            class_="mark",
            cx=number(middle[0]),
            cy=number(middle[1]),
            r=4,
        )
    )
    content.append(_color_bar(frame, low, high))
    description = (
        f"{title}: loss over two directions, {low:.4g} to {high:.4g} in colour"
    )
    return figure(title, frame.draw(description, *content), note)


def _color_bar(frame, low, high):
    left, count = frame.right + 14, len(HEAT)
    height = (frame.bottom - frame.top) / count
    parts = [
        shape(
            "rect",
            class_=f"heat h{i}",
            x=number(left),
            y=number(frame.bottom - (i + 1) * height),
            width=12,
            height=f"{height:.2f}",
        )
        for i in range(count)
    ]
    for i in range(0, count + 1, 3):
        value = low + (high - low) * i / count
        y = frame.bottom - i * height
        parts.append(
            tag("text", f"{value:.3g}", x=number(left + 16), y=number(y + 4))
        )
    parts.append(tag("text", "loss", x=number(left), y=number(frame.top - 11)))
    return join(parts)


def _finer(values):
    """Interpolates linearly along the first axis."""
    places = np.arange(len(values))
    fine = np.linspace(0, len(values) - 1, _FINE * (len(values) - 1) + 1)
    return np.stack(
        [np.interp(fine, places, column) for column in values.T], axis=1
    )


def run_legend(colors, dashed=None):
    """The colours of runs, and what a dashed line is.

    Args:
        colors: dict from the name of a run to the number of its colour.
        dashed: what it is, or `None`.
    """
    entries = [(f"line s{color}", name) for name, color in colors.items()]
    if dashed:
        entries.append(("dash", dashed))
    return legend(entries)
