"""The examples of every `--help`, run as written on the files they name."""

import re
import shlex
import shutil

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.cli import main
from tests import networks
from tests.cli import commands

# Minutes, or a data set that has to be downloaded: only parsed.
_LONG = re.compile("keras-saq (demo|report)|cifar10")


def examples():
    """List of all command lines, in the order of the commands."""
    found = []
    for name in main.COMMANDS:
        text = __import__(
            f"keras_saq.cli.{name}", fromlist=["EXAMPLES"]
        ).EXAMPLES
        text = text.replace("\\\n", " ")
        found += [" ".join(line.split()) for line in text.splitlines()]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every file that an example names."""
    folder = tmp_path_factory.mktemp("examples")
    keras.utils.set_random_seed(0)
    x, _ = networks.images(16)
    model = commands.network()
    model.save(folder / "float.keras")
    quantized = keras_saq.quantize_model(model, "w4a8", calibration=x)
    for name in ("quantized", "model"):
        quantized.save(folder / f"{name}.keras")
    keras_saq.export_litert(quantized, folder / "model.tflite")
    for name in ("float", "int8", "w4a8", "a", "b"):
        shutil.copy(folder / "model.tflite", folder / f"{name}.tflite")
    commands.write_digits(folder / "train.npz")
    np.savez(folder / "test.npz", x=x)
    commands.write_image_folder(folder / "images", per_class=10)
    keras_saq.QuantizePolicy.preset("w4a8").save(folder / "policy.json")
    return folder


def test_every_example_is_a_command(monkeypatch, folder):
    monkeypatch.chdir(folder)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run/run.json").write_text(
        '{"settings": {"model": "a.keras", "data": "d"}}'
    )
    lines = examples()
    assert len(lines) >= 2 * len(main.COMMANDS) - 2
    for line in lines:
        first, *args = shlex.split(line)
        assert first == "keras-saq" and main.parse([first, *args])
    shutil.rmtree(folder / "run")


def _runnable():
    return [line for line in examples() if not _LONG.search(line)]


@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_examples_run(folder, monkeypatch, capsys):
    # One after another: some read what others wrote.
    monkeypatch.chdir(folder)
    for line in _runnable():
        code, out, err = commands.run(capsys, *shlex.split(line)[1:])
        assert code == 0, f"{line}\n{err}"
        assert out and "Traceback" not in err
