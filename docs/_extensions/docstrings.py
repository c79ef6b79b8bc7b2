"""Reads the house's docstrings, which are Google style with a bit of Markdown.

Signatures of Keras layers are those of `__init__`, not of Keras's `__new__`.

What reStructuredText would read in another way: indented formulas and tables
are shown as they stand, and code in backticks may be followed by a letter, as
in "a list of `Rule`s".
"""

import inspect
import re

_SECTION = re.compile(
    r"(Args|Attributes|Returns|Raises|Yields|Example|Examples):$"
)
_CODE = re.compile(r"((?<!`)`[^`]+`(?!`))")
_NAME = re.compile(r"`[A-Za-z_][\w.]*`")


def process(app, what, name, obj, options, lines):
    lines[:] = _escaped(_literal_blocks(lines))


def _literal_blocks(lines):
    """The lines, with `::` before what is to be shown as it stands."""
    result, above, inside = [], "", False
    for i, line in enumerate(lines):
        if not line.strip():
            result.append(line)
            continue
        indented = line.startswith("    ")
        starts = i > 0 and not lines[i - 1].strip()
        table = line.startswith("|")
        if (
            table
            and starts
            or (
                indented
                and starts
                and not inside
                and above
                and not above.startswith(" ")
                and not _SECTION.match(above)
            )
        ):
            result += ["::", ""]
            inside = True
        elif not indented and not table:
            inside = False
        result.append("    " + line if table else line)
        above = line
    return result


def _escaped(lines):
    literal = False
    for line in lines:
        if line == "::":
            literal = True
        elif line and not line.startswith(" "):
            literal = False
        if literal or line.lstrip().startswith((">>>", "...")):
            yield line
            continue
        parts = _CODE.split(line)
        for i in range(0, len(parts), 2):
            parts[i] = parts[i].replace("|", r"\|")
            if i and re.match(r"\w", parts[i]):
                parts[i] = "\\ " + parts[i]
        # Names become links; other code would lose a leading dot as one.
        parts[1::2] = [
            part if _NAME.fullmatch(part) else f"`{part}`"
            for part in parts[1::2]
        ]
        yield "".join(parts)


def signature(app, what, name, obj, options, text, returns):
    if what != "class" or not inspect.isfunction(obj.__init__):
        return None
    found = inspect.signature(obj.__init__)
    parameters = list(found.parameters.values())[1:]
    return str(found.replace(parameters=parameters)), returns


def setup(app):
    app.connect("autodoc-process-signature", signature)
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
