"""The frame of a plot: ticks, grid lines, labels with units."""

import math

from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import shape
from keras_saq.report.page.markup import tag

WIDTH, HEIGHT = 340, 210
_TOP, _RIGHT, _BOTTOM = 26, 14, 40
_CHARACTER = 6.4  # width of a digit of a tick label


def ticks(low, high, count=5):
    """Round numbers within a range.

    Example:

    >>> from keras_saq.report.page.axes import ticks
    >>> ticks(0, 1), ticks(3, 48)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0, 40.0])
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(
        s * power for s in (1, 2, 2.5, 5, 10) if s * power >= span / count
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def whole_ticks(low, high, count=6):
    """Ticks at whole numbers."""
    found = [int(t) for t in ticks(low, high, count) if t == int(t)]
    return found or [round(low)]


def powers(low, high):
    """Powers of ten within a range; of few, their halves and doubles too."""
    exponents = range(
        math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2
    )
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [
            float(f"{f}e{e}")
            for e in exponents
            for f in factors
            if low <= float(f"{f}e{e}") <= high
        ]
        if len(found) >= 3:
            break
    while len(found) > 6:
        found = found[::2]
    return found or ticks(low, high, 3)


def padded(values, share=0.06):
    """`(low, high)` around some numbers, with room at both ends."""
    low, high = min(values), max(values)
    pad = share * ((high - low) or abs(high) or 1.0)
    return low - pad, high + pad


def number(value):
    """Coordinates with one decimal: files stay small and are all equal."""
    return f"{value:.1f}".removesuffix(".0")


class Frame:
    """Axes with a place for what is drawn.

    Args:
        x, y: `(low, high)` of the data.
        x_label, y_label: what is on the axes, with the unit.
        x_ticks, y_ticks: where to; by default at round numbers.
        right: room on the right.
        height: of the picture.
    """

    def __init__(
        self,
        x,
        y,
        x_label,
        y_label,
        x_ticks=None,
        y_ticks=None,
        right=_RIGHT,
        height=HEIGHT,
    ):
        self.x_range, self.y_range = x, y
        self.x_label, self.y_label = x_label, y_label
        self.x_ticks = ticks(*x) if x_ticks is None else x_ticks
        self.y_ticks = ticks(*y) if y_ticks is None else y_ticks
        self.height = height
        longest = max((len(f"{t:g}") for t in self.y_ticks), default=1)
        self.left = 12 + _CHARACTER * longest
        self.right = WIDTH - right
        self.top, self.bottom = _TOP, height - _BOTTOM

    def x(self, value):
        """Horizontal place of a number."""
        return _place(value, *self.x_range, self.left, self.right)

    def y(self, value):
        """Vertical place of a number."""
        return _place(value, *self.y_range, self.bottom, self.top)

    def draw(self, description, *content):
        """The picture: grid, what is drawn, and the labels over it."""
        return tag(
            "svg",
            self._grid(),
            *content,
            self._texts(),
            viewBox=f"0 0 {WIDTH} {self.height}",
            role="img",
            aria_label=description,
        )

    def _grid(self):
        lines = [
            f"M{number(self.left)} {number(self.y(t))}H{number(self.right)}"
            for t in self.y_ticks
        ]
        axis = (
            f"M{number(self.left)} {number(self.bottom)}H{number(self.right)}"
        )
        marks = "".join(
            f"M{number(self.x(t))} {number(self.bottom)}v4"
            for t in self.x_ticks
        )
        return join(
            [
                shape("path", class_="grid", d="".join(lines)),
                shape("path", class_="axis", d=axis + marks),
            ]
        )

    def _texts(self):
        texts = [
            _text(self.left - 5, self.y(t) + 4, f"{t:g}", "end")
            for t in self.y_ticks
        ]
        texts += [
            _text(self.x(t), self.bottom + 17, f"{t:g}", "middle")
            for t in self.x_ticks
        ]
        center = (self.left + self.right) / 2
        texts.append(_text(center, self.height - 5, self.x_label, "middle"))
        texts.append(_text(2, 13, self.y_label, "start"))
        return join(texts)


def _text(x, y, text, anchor):
    return tag("text", text, x=number(x), y=number(y), text_anchor=anchor)


def _place(value, low, high, start, end):
    share = (value - low) / ((high - low) or 1.0)
    return start + share * (end - start)
