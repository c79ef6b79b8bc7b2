"""`keras-saq quantize` with what needs no labels or no data at all."""

import keras
import numpy as np
import pytest

import keras_saq.reconstruction
from tests.cli.commands import network
from tests.cli.commands import run


@pytest.fixture
def model(tmp_path):
    keras.utils.set_random_seed(0)
    made = network()
    made.layers[1].moving_variance.assign(np.linspace(0.5, 2, 8))
    path = tmp_path / "float.keras"
    made.save(path)
    return path


def test_from_no_data_and_reconstructed(model, tmp_path, capsys, monkeypatch):
    for name, steps in (("data_free", 3), ("reconstruct", 4)):
        whole = getattr(keras_saq.reconstruction, name)
        monkeypatch.setattr(
            keras_saq.reconstruction,
            name,
            lambda *args, whole=whole, steps=steps: whole(*args, steps=steps),
        )
    path = tmp_path / "q.keras"
    code, text, error = run(
        capsys,
        "quantize",
        model,
        path,
        "--policy=w4a8",
        "--data-free",
        "--reconstruct",
    )
    assert code in (0, None), error
    q = keras.saving.load_model(path)
    assert np.isfinite(q.predict(np.zeros((2, 8, 8, 1)), verbose=0)).all()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--reconstruct"], "--reconstruct needs inputs"),
        (["--data-free", "--calibration=x.npz"], "Give one"),
    ],
)
def test_flags_that_do_not_fit(model, tmp_path, capsys, flags, message):
    path = tmp_path / "q.keras"
    code, _, error = run(capsys, "quantize", model, path, *flags)
    assert code not in (0, None)
    assert message in error
    assert not path.exists()
