"""Every example runs, on made-up or small data.

`cifar_resnet20` has a file of tests of its own.
"""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest

from tests.examples.runner import FOLDER
from tests.examples.runner import run

# What stays in float is said in a warning, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:(.|\n)*stay in float")

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Processes of their own."
)


@pytest.fixture(autouse=True)
def inside_of_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def has(package):
    return importlib.util.find_spec(package) is not None


def run_alone(folder, name, *arguments, backend):
    """In a process of its own, where a backend or devices are set."""
    result = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--smoke", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": backend},
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_quickstart(tmp_path, capsys):
    run("quickstart", "--smoke", "--bits=w2a4")
    printed = capsys.readouterr().out
    assert "w2a4 QAT" in printed and printed.count("every output") == 2
    files = sorted(p.name for p in (tmp_path / "quickstart").iterdir())
    assert files == ["qat.tflite", "saq.tflite"]


def test_finetune_application(tmp_path, capsys):
    run("finetune_application", "--smoke", "--size=32")
    assert "every output" in capsys.readouterr().out
    assert (tmp_path / "finetune/saq.tflite").stat().st_size > 5_000


def test_keras_hub_vit(tmp_path, capsys):
    pytest.importorskip("keras_hub")
    run("keras_hub_vit", "--smoke", "--hidden_dim=16")
    printed = capsys.readouterr().out
    assert "softmax is computed in float" in printed
    assert "w8a8 SAQ" in printed and " yes " in printed
    assert (tmp_path / "vit/vit-w8a8.tflite").exists()


@pytest.mark.skipif(not has("keras_cv"), reason="keras_cv is missing")
def test_keras_cv_model(tmp_path, capsys):
    run("keras_cv_model", "--smoke")
    assert " yes " in capsys.readouterr().out
    assert (tmp_path / "keras_cv/saq.keras").exists()


def test_data_free(capsys):
    run("data_free", "--smoke", "--bits=w2a4")
    printed = capsys.readouterr().out
    assert "zero_shot, SAQ" in printed and printed.count("w2a4") == 5


def test_mixed_precision_search(tmp_path, capsys):
    run("mixed_precision_search", "--smoke", "--epochs=0")
    assert "of 392.05 M allowed" in capsys.readouterr().out
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert len(policy["rules"]) > 20


def test_custom_layer(tmp_path, capsys):
    run("custom_layer", "--smoke")
    printed = capsys.readouterr().out
    assert "float island: mixing: " in printed
    assert printed.count("the same") == 3
    assert printed.count("every output") == 3
    files = {p.name for p in (tmp_path / "custom_layer").glob("*.tflite")}
    names = ("with_rule", "with_annotation", "with_layers")
    assert files == {f"{name}.tflite" for name in names}


def test_custom_train_step(capsys):
    run("custom_train_step", "--smoke")
    assert "w2a4 SAQ with its own step" in capsys.readouterr().out


def test_custom_train_step_changes_both_passes():
    """Without mixing and penalty it is plain SAQ, with them it is not."""
    import numpy as np

    import keras_saq
    from tests.examples.runner import example

    x = np.random.default_rng(0).random((16, 8, 8, 1), "float32")
    y = np.eye(10, dtype="float32")[np.arange(16) % 10]

    def trained(wrap):
        keras.utils.set_random_seed(0)
        q = keras_saq.quantize_model(module.network(), "w4a8", calibration=x)
        model = wrap(q)
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.CategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, y, batch_size=16, epochs=1, verbose=0)
        return keras.ops.convert_to_numpy(model.trainable_variables[0])

    with example("custom_train_step") as module:
        plain = trained(lambda q: keras_saq.SAQModel(q, rho=0.1))
        off = trained(lambda q: module.MixupSAQ(q, 1.0, 0.0, rho=0.1))
        on = trained(lambda q: module.MixupSAQ(q, 0.7, 0.1, rho=0.1))
    np.testing.assert_allclose(off, plain, atol=1e-6)
    assert np.abs(on - plain).max() > 1e-4


def test_migrate_from_tfmot(tmp_path, capsys):
    run("migrate_from_tfmot", "--smoke")
    printed = capsys.readouterr().out
    assert "every output" in printed
    (hidden,) = [x for x in printed.splitlines() if x.startswith("hidden")]
    assert hidden.split()[2] == "4"  # bits, from the config


@tensorflow_only
@pytest.mark.skipif(
    not has("tensorflow_model_optimization"), reason="TFMOT is missing"
)
def test_migrate_with_tfmot_itself(tmp_path):
    # To import TFMOT turns `tf.keras` into tf_keras for all other tests.
    printed = run_alone(
        tmp_path, "migrate_from_tfmot", "--tfmot", backend="tensorflow"
    )
    (hidden,) = [x for x in printed.splitlines() if x.startswith("hidden")]
    assert hidden.split()[2] == "4"


@tensorflow_only
@pytest.mark.parametrize(
    "backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)]
)
def test_many_devices(backend, tmp_path):
    pytest.importorskip(backend)
    printed = run_alone(tmp_path, "many_devices", backend=backend)
    assert f"{backend}: losses" in printed and "2 devices" in printed
    epoch, one, many, difference = printed.splitlines()[-1].split()
    assert epoch == "1"
    # Each replica with a perturbation of its own: 2e-3 and 3e-2.
    assert abs(float(one) - float(many)) < 5e-4
    assert float(difference) < 5e-3


@tensorflow_only
def test_jax_backend(tmp_path):
    pytest.importorskip("jax")
    printed = run_alone(tmp_path, "jax_backend", backend="jax")
    assert "equal on all 4,970 outputs" in printed
    assert "Keras backend: jax" in printed


def test_run_on_device(tmp_path, capsys):
    run("run_on_device", "--smoke")
    printed = capsys.readouterr().out
    assert "image   int8" in printed and "microseconds" in printed
    run("run_on_device", "--smoke", "--model=device.tflite")
    again = capsys.readouterr().out
    lines = [x for x in printed.splitlines() if x.startswith("accuracy")]
    assert lines[0] in again


def test_run_on_device_says_what_it_cannot_run(tmp_path):
    with pytest.raises(SystemExit, match="There is no file 'x.tflite'"):
        run("run_on_device", "--smoke", "--model=x.tflite")


@pytest.mark.parametrize(
    "name, package",
    [
        ("quickstart", "sklearn"),
        ("custom_layer", "sklearn"),
        ("custom_train_step", "sklearn"),
        ("many_devices", "sklearn"),
        ("migrate_from_tfmot", "sklearn"),
        ("run_on_device", "sklearn"),
        ("finetune_application", "tensorflow_datasets"),
        ("mixed_precision_search", "tensorflow_datasets"),
        ("keras_hub_vit", "keras_hub"),
        ("keras_cv_model", "keras_cv"),
    ],
)
def test_a_missing_package_is_one_line_with_its_extra(
    name, package, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=r"keras-saq\[\w+\]") as error:
        run(name)
    assert "\n" not in str(error.value)


def test_a_word_too_many_is_refused():
    from absl import app

    from tests.examples.runner import example

    with example("quickstart") as module:
        with pytest.raises(app.UsageError, match="--smok"):
            module.main(["quickstart", "--smok"])
