"""Every example says what it shows, needs and takes, and what came out."""

import ast
import re

import pytest
from absl import flags

from tests.examples.runner import FOLDER
from tests.examples.runner import NAMES
from tests.examples.runner import example

PARTS = ("Shows", "Needs", "Time", "Result")


def head(name):
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("name", NAMES)
def test_head(name):
    title, text = head(name).split("\n", 1)
    assert title.endswith(".")
    places = [re.search(rf"^{part}: \S", text, re.M) for part in PARTS]
    assert None not in places, f"of {PARTS} in this order"
    starts = [place.start() for place in places]
    assert starts == sorted(starts)
    needs, time, result = (
        text[starts[i] : end]
        for i, end in ((1, starts[2]), (2, starts[3]), (3, None))
    )
    assert "pip install" in needs
    assert re.search(r"\d (s|min)\b", time) and "processor" in time
    assert f"python examples/{name}.py" in result
    assert re.search(r"\d", result)


@pytest.mark.parametrize("name", NAMES)
def test_flags_have_help_and_a_smoke_mode(name, monkeypatch):
    # Of this one another backend would take TensorFlow away from all tests.
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    own = set(flags.FLAGS)
    with example(name):
        defined = set(flags.FLAGS) - own
        assert "smoke" in defined and not flags.FLAGS.smoke
        for flag in defined:
            assert flags.FLAGS[flag].help.strip()[-1] in ".?", flag
    assert not defined & set(flags.FLAGS)


def test_the_table_lists_every_example():
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\.py\]\((\w+)\.py\) \|", table, re.M)
    assert sorted(text for text, _ in listed) == NAMES
    assert all(text == target for text, target in listed)
