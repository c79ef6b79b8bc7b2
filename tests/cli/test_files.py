"""`export`, `inspect`, `verify` and `benchmark`, and each way they end."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.cli import files
from keras_saq.cli import main
from tests import networks
from tests.cli.commands import run
from tests.cli.test_cli import run as run_installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A quantized model, its file and inputs for it."""
    folder = tmp_path_factory.mktemp("files")
    x, _ = networks.images(16)
    model = networks.sequential_network()
    model.save(folder / "float.keras")
    model = keras_saq.quantize_model(model, "w4a8", calibration=x)
    model.save(folder / "model.keras")
    keras_saq.export_litert(model, folder / "model.tflite")
    np.savez(folder / "x.npz", x=x)
    np.save(folder / "x.npy", x)
    np.savez(folder / "other.npz", a=x, b=x)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez(folder / "zip", x=x)
    (folder / "zip.npz").rename(folder / "zip.keras")
    (folder / "broken.keras").write_bytes(b"no model")
    (folder / "broken.tflite").write_bytes(b"no model")
    content = bytearray((folder / "model.tflite").read_bytes())
    layer = model.layers[0]
    codes = layer.kernel_quantizer.codes(layer.kernel).transpose(3, 0, 1, 2)
    at = content.find(codes.astype(np.int8).tobytes())
    if at < 0:  # a batch norm with a negative slope flips signs
        at = content.find((-codes).astype(np.int8).tobytes())
    content[at + 4] ^= 0x40
    (folder / "changed.tflite").write_bytes(bytes(content))
    return folder


def test_export_as_a_user_types_it(folder, tmp_path):
    path = tmp_path / "out.tflite"
    result = run_installed(
        *("export", str(folder / "model.keras"), str(path)),
        *("--verify", str(folder / "x.npz"), "--require-exact", "--json"),
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["file_bytes"] == path.stat().st_size
    assert report["parity"]["reference_exact"] is True
    assert path.read_bytes() == (folder / "model.tflite").read_bytes()
    assert "loading" in result.stderr and "loading" not in result.stdout


@pytest.mark.parametrize("data", ["x.npy", "x.npz"])
def test_verify(folder, capsys, data):
    args = (folder / "model.tflite", folder / "model.keras", folder / data)
    code, out, _ = run(capsys, "verify", *args)
    assert code == 0 and "equal on all 160 outputs of 16 samples" in out


@pytest.mark.parametrize("types", ["int8", "uint8"])
def test_export_with_integer_edges(folder, tmp_path, capsys, types):
    path = tmp_path / "out.tflite"
    args = ("export", folder / "model.keras", path)
    flags = (f"--input-type={types}", f"--output-type={types}")
    code, out, _ = run(capsys, *args, *flags)
    assert code == 0 and types.upper() in out and "DEQUANTIZE" not in out


def test_export_of_small_files(folder, tmp_path, capsys):
    path = tmp_path / "out.tflite"
    args = ("export", folder / "model.keras", path, "--storage=int8", "--json")
    code, out, _ = run(capsys, *args)
    assert code == 0
    assert {t["type"] for t in json.loads(out)["tensors"]} == {"INT8", "INT32"}


@pytest.mark.filterwarnings("ignore:.*stay in float")
def test_export_and_verify_with_dynamic_range(folder, tmp_path, capsys):
    model = keras.saving.load_model(folder / "float.keras")
    with np.load(folder / "x.npz") as data:
        q = keras_saq.quantize_model(model, "w4", calibration=data["x"])
    q.save(tmp_path / "w4.keras")
    path = tmp_path / "out.tflite"
    args = ("export", tmp_path / "w4.keras", path, "--dynamic-range", "--json")
    code, out, err = run(capsys, *args)
    assert code == 0, err
    report = json.loads(out)
    assert "DEQUANTIZE" not in report["operators"]
    assert any("own range" in reason for _, reason in report["islands"])
    args = ("verify", path, tmp_path / "w4.keras", folder / "x.npz")
    assert run(capsys, *args)[0] == 0
    path.unlink()
    args = ("export", folder / "model.keras", path, "--dynamic-range")
    code, _, err = run(capsys, *args)
    assert code == 1 and "learned ranges" in err and not path.exists()


def test_verify_ends_with_3_where_the_file_deviates(folder, capsys):
    args = (folder / "changed.tflite", folder / "model.keras")
    code, out, _ = run(capsys, "verify", *args, folder / "x.npz", "--json")
    report = json.loads(out)
    assert code == 3 and not report["within_bounds"]
    rows = [row for row in report["layers"] if row["deviates"]]
    assert [row["operator"] for row in rows] == ["CONV_2D"]
    assert report["first_deviation"] == rows[0]["name"]
    code, out, _ = run(capsys, "verify", *args, folder / "x.npz")
    assert code == 3
    assert f"first layer that deviates: {rows[0]['name']}" in out


def test_verify_per_layer(folder, capsys):
    args = (folder / "model.tflite", folder / "model.keras", folder / "x.npz")
    code, out, _ = run(capsys, "verify", *args, "--per-layer", "--json")
    layers = json.loads(out)["layers"]
    assert code == 0 and len(layers) == 7
    assert not any(row["deviates"] for row in layers)
    # All but the quantized input are what a Keras layer makes.
    assert sum(row["exact"] is not None for row in layers) >= 5


def test_inspect(folder, capsys):
    code, out, _ = run(capsys, "inspect", folder / "model.tflite", "--json")
    report = json.loads(out)
    assert code == 0 and report["operators"]["FULLY_CONNECTED"] == 2
    assert report["undelegated"] == [] and report["problem"] is None
    code, out, _ = run(capsys, "inspect", folder / "model.tflite")
    assert code == 0 and f"{report['file_bytes']:,} bytes" in out


def test_benchmark(folder, capsys):
    files = [folder / "model.tflite", folder / "changed.tflite"]
    flags = ("--threads=2", "--rounds=3", "--json")
    code, out, _ = run(capsys, "benchmark", *files, *flags)
    report = json.loads(out)
    first, second = report["files"]
    assert code == 0 and report["num_threads"] == 2 and report["rounds"] == 3
    assert first["ratio"] == first["cpu_ratio"] == 1
    assert second["ratio"] > 0 and second["cpu_ratio"] > 0
    assert first["low_ms"] <= first["median_ms"] <= first["high_ms"]
    assert first["peak_bytes"] > first["file_bytes"]
    code, out, _ = run(capsys, "benchmark", *files, "--no-delegate")
    assert code == 0 and "built-in kernels" in out


ERRORS = {
    "inspect nothing.tflite": "cannot be read: No such file",
    "inspect broken.tflite": "is not a .tflite file",
    "inspect x.npz": "is not a .tflite file",
    "benchmark nothing.tflite": "cannot be read",
    "benchmark model.tflite broken.tflite": "cannot be run",
    "export nothing.keras a.tflite": "is not a .keras file that exists",
    "export model.tflite a.tflite": "is not a .keras file that exists",
    "export broken.keras a.tflite": "is not a readable .keras file",
    "export float.keras a.tflite": "is not quantized",
    "export model.keras a.txt": "must end in '.tflite'",
    "export model.keras missing/a.tflite": "does not exist",
    "export model.keras a.tflite --require-exact": "needs data",
    "export model.keras a.tflite --verify=broken.npz": "not a readable",
    "export zip.keras a.tflite": "is not a readable .keras file",
    "export model.keras a.tflite --import=no_such": "No module named",
    "verify model.tflite model.keras broken.npz": "not a readable .npy or",
    "verify model.tflite model.keras nothing.npy": "not a readable .npy or",
    "verify model.tflite model.keras other.npz": "no array for the inputs",
    "verify broken.tflite model.keras x.npz": "not a readable LiteRT file",
    "verify nothing.tflite model.keras x.npz": "not a readable LiteRT file",
}


@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_message_and_exit_with_1(
    line, folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    before = sorted(p.name for p in folder.iterdir())
    code, out, err = run(capsys, *line.split())
    command = line.split()[0]
    assert code == 1 and out == ""
    assert f"keras-saq {command}: " in err and ERRORS[line] in err
    assert "Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize(
    "line",
    [
        "inspect",
        "inspect a.tflite b.tflite",
        "benchmark",
        "benchmark a.tflite --rounds=many",
        "benchmark a.tflite --rounds=0",
        "benchmark a.tflite --threads=0",
        "export model.keras",
        "export model.keras a.tflite --input-type=int4",
        "verify a.tflite model.keras",
    ],
)
def test_wrong_usage_exits_with_2(line, capsys):
    code, out, err = run(capsys, *line.split())
    assert code == 2 and out == "" and "usage: keras-saq" in err


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_has_examples_and_exit_codes(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"\nexamples:\n  keras-saq {command}" in out
    assert "exit codes: 0 done" in out


def test_own_classes_come_from_an_imported_module(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class MyDense(keras.layers.Dense):\n"
        "    pass\n"
    )
    script = (
        "import keras, keras_saq, numpy as np, my_layers\n"
        "x = keras.Input((4,))\n"
        "m = keras.Model(x, my_layers.MyDense(3)(x))\n"
        "q = keras_saq.quantize_model(m, 'w4a8', calibration=np.eye(4))\n"
        "q.save('m.keras')\n"
    )
    monkeypatch.chdir(tmp_path)
    subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True
    )
    code, _, err = run(capsys, "export", "m.keras", "m.tflite")
    assert code == 1 and "--import" in err
    code, out, err = run(
        capsys, "export", "m.keras", "m.tflite", "--import=my_layers"
    )
    assert code == 0, err
    assert keras.saving.get_registered_object("mine>MyDense") is not None


class Own(keras.Model):
    """A class that says nothing about its inputs."""

    def call(self, inputs):
        return inputs


def test_inputs_of_a_class_of_its_own(tmp_path):
    x, path = np.ones((3, 4)), tmp_path / "x.npz"
    for arrays in ({"x": x, "y": x[:, 0]}, {"any": x}):
        np.savez(path, **arrays)
        assert files.load_inputs(path, Own()).shape == (3, 4)
    np.save(tmp_path / "x.npy", x)
    assert files.load_inputs(tmp_path / "x.npy", Own()).shape == (3, 4)
    np.savez(path, a=x, b=x)
    with pytest.raises(ValueError, match="no array for the inputs"):
        files.load_inputs(path, Own())


def test_an_early_closed_pipe_is_no_error(folder):
    command = f"{sys.executable} -m keras_saq.cli.main inspect model.tflite"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and result.stdout.count("\n") == 1
