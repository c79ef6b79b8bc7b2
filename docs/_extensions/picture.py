"""`{picture} name`: a figure with one drawing for light and one for dark.

    ```{picture} grid
    :alt: what it shows, for those who do not see it
    The caption.
    ```

shows `pictures/grid-light.svg` or `pictures/grid-dark.svg`, which
`pictures/draw.py` writes.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged_required}

    def run(self):
        name = self.arguments[0]
        if "alt" not in self.options:
            raise self.error(f"The picture '{name}' has no `:alt:` text.")
        figure = nodes.figure("", align="center")
        for mode in ("light", "dark"):
            uri = f"/pictures/{name}-{mode}.svg"
            figure += nodes.image(
                uri=uri, alt=self.options["alt"], classes=[f"only-{mode}"]
            )
            self.env.note_dependency(str(self.env.srcdir / uri[1:]))
        caption = nodes.caption()
        texts, messages = self.state.inline_text(
            " ".join(self.content), self.lineno
        )
        caption.extend(texts)
        figure += caption
        return [figure, *messages]


def setup(app):
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
