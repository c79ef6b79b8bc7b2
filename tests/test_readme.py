"""The README's example runs as it is printed."""

import pathlib
import re

import keras

from tests import networks
from tests.networks import fit
from tests.networks import images

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_example(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 9
    x, y = images()
    monkeypatch.chdir(tmp_path)
    fit(networks.residual_network(), epochs=1).save("float.keras")
    names = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    names["loss"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    exec(compile(code, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "INT4" in printed and "equal on all" in printed
