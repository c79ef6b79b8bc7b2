"""The pages of the documentation, as files."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def pages():
    """Paths of all pages, sorted; not of what a build has left."""
    return sorted(
        page
        for page in DOCS.rglob("*.md")
        if "_build" not in page.relative_to(DOCS).parts
    )
