"""Links of an included file lead where they lead from that file."""

import os
import posixpath
import re

_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s]+)(\))")


def relink(app, relative_path, parent_docname, content):
    included = posixpath.dirname(relative_path.as_posix())
    parent = posixpath.dirname(parent_docname)

    def moved(match):
        target = posixpath.normpath(posixpath.join(included, match[2]))
        path = os.path.relpath(target, parent or ".")
        return match[1] + path.replace(os.sep, "/") + match[3]

    content[0] = _LINK.sub(moved, content[0])


def setup(app):
    app.connect("include-read", relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
