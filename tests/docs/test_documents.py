"""Runs the Python blocks of the README and of the pages, as printed.

A document's blocks share one namespace, in the order in which they stand. It
starts with what every user has: a trained model, data, a loss.
"""

import re
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from tests.docs.pages import ROOT
from tests.docs.pages import pages

# In a list a block is indented.
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def documents():
    return {
        page.relative_to(ROOT).as_posix(): blocks(page)
        for page in [ROOT / "README.md", *pages()]
        if blocks(page)
    }


def blocks(page):
    """List of `(line, source)` of the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: match.start(2)].count("\n"), textwrap.dedent(match[2]))
        for match in _BLOCK.finditer(text)
    ]


def what_a_user_has():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    # Most of the cost is where a search may choose: not first, not last.
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 1)(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype("float32")
    y = rng.integers(0, 3, 64)
    return {
        "__name__": "document",
        "keras": keras,
        "keras_saq": keras_saq,
        "np": np,
        "model": model,
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **{name: x for name in ("x", "x_train", "x_test", "x_val")},
        **{name: y for name in ("y", "y_train", "y_test", "y_val")},
    }


# A document's policy is for the reader's network, not for this one.
@pytest.mark.filterwarnings("ignore:These rules of the policy decide nothing")
@pytest.mark.parametrize("name", documents())
def test_document(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = what_a_user_has()
    names["model"].save("float.keras")
    for line, source in documents()[name]:
        # So that a traceback has the document's lines.
        code = compile("\n" * line + source, name, "exec")
        exec(code, names)
