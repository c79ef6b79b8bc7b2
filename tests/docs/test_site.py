"""The site holds together: pages, links, pictures, API; without Sphinx."""

import importlib
import re

import pytest

from tests.docs.pages import DOCS
from tests.docs.pages import ROOT
from tests.docs.pages import pages

_FENCE = re.compile(r"^( *)(```+).*?^\1\2$", re.MULTILINE | re.DOTALL)
_TOCTREE = re.compile(r"^```{toctree}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_PICTURE = re.compile(r"^```{picture} (\S+)\n:alt: \S", re.MULTILINE)
_LARGEST_PICTURE = 60_000
MODES = ("light", "dark")
# A table and a module, and a callback that stands with the others.
ELSEWHERE = {"STRATEGIES", "strategies", "SharpnessMonitor"}
# The package that an API page has all public names of.
_API = {
    "policy": "keras_saq.policy",
    "quantizers": "keras_saq.quantizers",
    "layers": "keras_saq.layers",
    "sharpness": "keras_saq.sharpness",
    "strategies": "keras_saq.sharpness.strategies",
    "callbacks": "keras_saq.callbacks",
    "reconstruction": "keras_saq.reconstruction",
    "search": "keras_saq.search",
    "data": "keras_saq.data",
    "export": "keras_saq.export",
    "report": "keras_saq.report",
}


def name(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


def listed(page):
    """Names of the pages in the toctrees of a page."""
    for tree in _TOCTREE.findall(page.read_text("utf-8")):
        for line in tree.splitlines():
            if line and not line.startswith(":"):
                yield name((page.parent / f"{line}.md").resolve())


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    found, count = set(), {}
    for heading in _HEADING.findall(text):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        slug = slug.replace(" ", "-")
        number = count[slug] = count.get(slug, -1) + 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def test_every_page_is_in_one_toctree():
    everything = {name(page): page for page in pages()}
    in_trees = [x for page in everything.values() for x in listed(page)]
    assert sorted(in_trees) == sorted(set(everything) - {"index"})


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "examples/README.md", *pages()],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_lead_somewhere(page):
    text = _FENCE.sub("", page.read_text("utf-8"))
    broken = []
    for link in _LINK.findall(text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_pictures_are_drawn_in_both_modes_and_are_small():
    shown = {
        picture
        for page in pages()
        for picture in _PICTURE.findall(page.read_text("utf-8"))
    }
    used = sum(p.read_text("utf-8").count("```{picture}") for p in pages())
    assert len(shown) == used > 0  # each once, and with a text
    files = {path.name for path in (DOCS / "pictures").glob("*.svg")}
    assert files == {f"{x}-{mode}.svg" for x in shown for mode in MODES}
    for file in files:
        assert (DOCS / "pictures" / file).stat().st_size < _LARGEST_PICTURE
    drawn = (DOCS / "pictures" / "draw.py").read_text("utf-8")
    assert all(f'"{picture}": ' in drawn for picture in shown)


@pytest.mark.parametrize("page", _API)
def test_every_public_name_is_documented(page):
    module = importlib.import_module(_API[page])
    assert documented(page) >= set(module.__all__) - ELSEWHERE


def test_every_name_of_the_package_is_documented():
    import keras_saq

    everything = set().union(
        *(documented(page.stem) for page in (DOCS / "api").glob("*.md"))
    )
    assert everything >= set(keras_saq.__all__) - {"__version__", "callbacks"}


def documented(page):
    """The names that an API page describes."""
    text = (DOCS / "api" / f"{page}.md").read_text("utf-8")
    return set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE))
