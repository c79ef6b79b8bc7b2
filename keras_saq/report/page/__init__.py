"""The page of a report: a function of the numbers alone."""

from keras_saq.report.page import file
from keras_saq.report.page import head
from keras_saq.report.page import layers
from keras_saq.report.page import run
from keras_saq.report.page import search
from keras_saq.report.page import sharpness
from keras_saq.report.page import training
from keras_saq.report.page import weights
from keras_saq.report.page.markup import Html
from keras_saq.report.page.markup import shape
from keras_saq.report.page.markup import tag
from keras_saq.report.page.style import style_sheet

_SECTIONS = {
    "layers": layers,
    "training": training,
    "weights": weights,
    "sharpness": sharpness,
    "search": search,
    "file": file,
    "run": run,
}


def render(report):
    """The page as HTML text.

    Args:
        report: the dict that `keras_saq.write_report` writes as JSON.
    """
    sections = {}
    for name, section in _SECTIONS.items():
        content = section.render(report)
        if content is not None:
            sections[name] = section.TITLE, content
    links = [
        tag("li", tag("a", title, href=f"#{name}"))
        for name, (title, _) in sections.items()
    ]
    body = [
        tag("section", tag("h2", title), content, id=name)
        for name, (title, content) in sections.items()
    ]
    page = tag(
        "html",
        _page_head(report),
        tag(
            "body",
            head.render(report),
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *body),
            tag(
                "footer",
                f"Made by keras_saq {report['keras_saq']}. All numbers are in "
                f"the file {report['json']} beside this page.",
                class_="soft",
            ),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _page_head(report):
    return tag(
        "head",
        shape("meta", charset="utf-8"),
        shape(
            "meta",
            name="viewport",
            content="width=device-width, initial-scale=1",
        ),
        tag("title", f"{report['title']}: keras_saq report"),
        tag("style", Html(style_sheet())),
    )


__all__ = ["render"]
