"""HTML and SVG elements; text that is put into one is escaped."""

import html

from keras_saq.plain_text import printable_lines


def _escaped(text):
    return html.escape(printable_lines(text))


class Html(str):
    """Text that is markup already; any other text is escaped."""


def join(parts):
    """One piece of markup from several; `None` is left out."""
    return Html(
        "".join(
            part if isinstance(part, Html) else _escaped(str(part))
            for part in parts
            if part is not None
        )
    )


def tag(name, /, *children, **attributes):
    """An element.

    Args:
        name: its name.
        *children: `Html`, or text, which is escaped.
        **attributes: `class_` is `class`, other underscores are hyphens, and
            an attribute that is `None` is left out.

    Example:

    >>> from keras_saq.report.page.markup import tag
    >>> tag("p", tag("b", "a<b"), " & c", class_="note")
    '<p class="note"><b>a&lt;b</b> &amp; c</p>'
    """
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Html(f"<{name}{text}></{name}>")
    return Html(f"<{name}{text}>{join(children)}</{name}>")


def shape(name, /, **attributes):
    """An SVG element without content."""
    return Html(tag(name, **attributes).replace(f"></{name}>", "/>"))


def paragraph(*children):
    """A sentence or two."""
    return tag("p", *children)


def breakable(text):
    """A path that may be broken after each `/` and `_`.

    Example:

    >>> from keras_saq.report.page.markup import breakable
    >>> breakable("a/b<c")
    'a/<wbr>b&lt;c'
    """
    text = _escaped(str(text))
    return Html(text.replace("/", "/<wbr>").replace("_", "_<wbr>"))


def places(paths):
    """Where something is: a few paths, or a line to click for many."""
    found = join([breakable(", ".join(paths))])
    if len(paths) <= 3:
        return found
    return details(f"{len(paths)} places", found)


def table(caption, header, rows, num_text=1):
    """A table in a box of its own, in which it scrolls.

    Args:
        caption: says what it shows.
        header: the column names.
        rows: a tuple of cells per line.
        num_text: how many columns are text; the others are numbers, flush
            right.
    """

    def cells(name, values, **attributes):
        return [
            tag(
                name,
                breakable(value) if type(value) is str else value,
                **attributes,
            )
            if i < num_text
            else tag(name, value, class_="n", **attributes)
            for i, value in enumerate(values)
        ]

    body = [tag("tr", *cells("td", row)) for row in rows]
    # The box can have the focus, so that the keyboard scrolls it.
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag("thead", tag("tr", *cells("th", header, scope="col"))),
            tag("tbody", *body),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def details(title, *children):
    """What is shown when somebody asks for it."""
    return tag("details", tag("summary", title), *children)


def folded(items, count, title, wrap):
    """The first items in the open, the others behind a line to click.

    Args:
        items: list of markup.
        count: how many are shown.
        title: of the rest; has a place `{}` for their number.
        wrap: `function(items)`, markup around a group of items.
    """
    # One more than fits is no reason to hide it.
    if len(items) <= count + 1:
        return wrap(items)
    rest = items[count:]
    return join(
        [wrap(items[:count]), details(title.format(len(rest)), wrap(rest))]
    )


def legend(entries):
    """What the colours mean: `(css class, text)` for each."""
    if not entries:
        return None
    keys = [
        tag("li", tag("span", class_=f"key {name}", aria_hidden="true"), text)
        for name, text in entries
    ]
    return tag("ul", *keys, class_="legend")
