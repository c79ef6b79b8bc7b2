"""Names from files as they may be printed.

A name in a file can hold anything: escape sequences that repaint a terminal,
line ends that forge a line, marks that turn text around. Wherever text goes to
a terminal, a table or a page, it goes through here first.
"""

import unicodedata

# Control, format (direction, invisible), surrogate, line and paragraph ends.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text, keep=""):
    """A text without control characters.

    Args:
        text: a string.
        keep: control characters that stay, such as line ends.

    Example:

    >>> from keras_saq.plain_text import printable
    >>> printable("conv" + chr(27) + "[2J" + chr(10) + "ok")
    'conv[2Jok'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        for c in text
        if c in keep or unicodedata.category(c) not in _UNPRINTABLE
    )


def printable_lines(text):
    """The same of a text of several lines."""
    return printable(text, keep="\n\t")
