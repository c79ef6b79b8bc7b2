"""Plain text tables."""

from keras_saq.plain_text import printable


def format_table(header, rows, num_left=1):
    """A table as text: the first columns flush left, the others right.

    Args:
        header: the column names.
        rows: tuples of strings, one per column.
        num_left: how many columns are flush left.
    """
    lines = [tuple(map(printable, row)) for row in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def text(line):
        cells = [
            cell.ljust(width) if i < num_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([text(lines[0]), rule, *map(text, lines[1:])])
