"""Mathematics as MathML: browsers draw it, with no script and no network.

The converter is the one that docutils brings along, so nothing is installed
for it. Sphinx's own renderers need a script from a network (MathJax) or LaTeX.
"""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math import latex2mathml
from sphinx.errors import ExtensionError


def _mathml(node, as_block):
    try:
        return latex2mathml.tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        raise ExtensionError(
            f"This formula has no MathML: {error}\n{node.astext()}"
        ) from error


def visit_inline(self, node):
    self.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(_mathml(node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml", (visit_inline, None), (visit_block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
