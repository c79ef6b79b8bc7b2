"""`keras-saq report`: run folders, files, and each way it ends."""

import json
import shutil

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.cli import report as report_command
from keras_saq.data import fit_image
from tests import networks
from tests.cli.test_files import run
from tests.report.test_html import read

_HISTORY = """\
epoch,accuracy,code_flip_rate,loss,val_accuracy,val_loss
0,0.5,0.1,2.5,0.4,2.75
1,0.75,0.05,1.5,,
"""


def write_run(path, model, method):
    """A folder as `keras-saq train` leaves it."""
    path.mkdir()
    record = {
        "version": keras_saq.__version__,
        "command": ["keras-saq", "train", "float.keras"],
        "settings": {
            "method": method,
            "rho": 0.1,
            "scale": 0.5,
            "mean": [0.25],
            "std": [1.0],
        },
        "model": {"name": model.name},
        "method": method,
        "seed": 0,
        "epochs_done": 2,
        "test": {"accuracy": 0.625, "loss": 1.25},
        "float_test": {"accuracy": 0.75, "loss": 1.0},
        "seconds": 12.5,
    }
    (path / "run.json").write_text(json.dumps(record))
    (path / "history.csv").write_text(_HISTORY)
    model.save(path / "model.keras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs, a file, data, a policy; and things that are none of that."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("report")
    x, y = networks.images(24)
    model = networks.sequential_network()
    model.save(folder / "float.keras")
    q = keras_saq.quantize_model(model, "w4a8", calibration=0.5 * x - 0.25)
    write_run(folder / "saq", keras_saq.SAQModel(q), "saq")
    write_run(folder / "qat", q, "qat")
    keras_saq.export_litert(q, folder / "model.tflite")
    np.savez(folder / "data.npz", x=x[:16], y=y[:16], x_test=x, y_test=y)
    np.savez(folder / "wide.npz", x=np.zeros((4, 5)), y=np.arange(4))
    np.savez(folder / "labels.npz", x=x, y=y + 90)
    search = keras_saq.PolicySearch(model, (x, y), "uniform", verbose=0)
    search.fit(keras_saq.Budget(bops="w4a4")).policy().save(
        folder / "policy.json"
    )
    keras_saq.QuantizePolicy.preset("w4a8").save(folder / "preset.json")
    (folder / "broken.json").write_text("{")
    (folder / "broken.keras").write_bytes(b"no model")
    (folder / "broken.tflite").write_bytes(b"no model")
    (folder / "empty").mkdir()
    for name, file, text in (
        ("unread", "run.json", "{"),
        ("listed", "run.json", "[]"),
        ("odd", "run.json", '{"test": 1}'),
        ("wordy", "run.json", '{"settings": {"mean": ["a"]}}'),
        ("lossy", "run.json", '{"settings": {"loss": "hinge"}}'),
        ("sized", "run.json", '{"settings": {"image_size": [8, "x"]}}'),
        ("torn", "history.csv", "epoch,loss\n0,x\n"),
        ("short", "history.csv", "epoch,loss\n0\n,1\n"),
        ("other", "history.csv", "loss\n0\n"),
    ):
        shutil.copytree(folder / "qat", folder / name)
        (folder / name / file).write_text(text)
    shutil.copytree(folder / "qat", folder / "early")
    (folder / "early" / "model.keras").unlink()
    return folder


def test_a_run_beside_another(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    path = tmp_path / "both.html"
    flags = ("--data=data.npz", "--samples=16", "--points=3", "--json")
    code, out, err = run(
        *(capsys, "report", "saq", "--compare=qat", f"--output={path}"),
        *("--tflite=model.tflite", "--policy=policy.json", *flags),
        "--float-model=float.keras",
    )
    assert code == 0, err
    page, report = read(path)
    assert json.loads(out) == report
    assert "sharpness of QAT" in err and f"written: {path}" in err
    assert list(report["colors"]) == ["SAQ", "QAT"]
    assert report["training"]["SAQ"]["val_loss"] == [2.75, None]
    assert report["metrics"]["float"]["accuracy"] == 0.75
    assert set(report["sharpness"]["by_model"]) == {"SAQ", "QAT"}
    assert report["accuracy"]["samples"] == 16
    assert report["data"] == "data.npz, test"
    assert report["parity"]["reference_exact"] is True
    # Inputs were scaled as the run says.
    x = np.load("data.npz")["x_test"]
    chosen = np.sort(np.random.default_rng(0).permutation(24)[:16])
    model = keras.saving.load_model("saq/model.keras").model
    outputs = model.predict(0.5 * x[chosen] - 0.25, verbose=0)
    y = np.load("data.npz")["y_test"][chosen]
    expected = float(np.mean(outputs.argmax(-1) == y))
    assert report["accuracy"]["by_model"]["SAQ"] == expected
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert report["sharpness"]["by_model"]["QAT"]["loss"] == pytest.approx(
        float(loss(y, outputs)), rel=1e-4
    )
    assert page.sections[-1] == "run"


def test_a_file_and_the_defaults(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "report", folder / "float.keras")
    assert code == 0 and out == "written: report.html and report.json\n"
    page, report = read(tmp_path / "report.html")
    assert page.sections == ["layers"] and report["title"] == "sequential"


def test_runs_of_one_method_have_their_folders_names(folder, tmp_path, capsys):
    shutil.copytree(folder / "qat", tmp_path / "again")
    path = tmp_path / "r.html"
    code, _, err = run(
        *(capsys, "report", folder / "qat", f"--compare={folder / 'qat'}"),
        *(f"--compare={tmp_path / 'again'}", f"--output={path}"),
        f"--compare={folder / 'float.keras'}",
    )
    assert code == 0, err
    labels = list(json.loads(path.with_suffix(".json").read_text())["colors"])
    assert labels[2] == "again" and len(set(labels)) == 4
    assert labels[3] == str(folder / "float.keras")


def test_labels_are_never_those_of_the_page(tmp_path, monkeypatch):
    for name in ("float", "other"):
        path = tmp_path / name
        path.mkdir()
        (path / "run.json").write_text('{"method": "float"}')
        (path / "model.keras").touch()
    monkeypatch.chdir(tmp_path)
    runs = [report_command._Run("float"), report_command._Run("other")]
    report_command._name(runs)
    assert [entry.label for entry in runs] == ["./float", "other"]


def test_loss_and_size_are_those_of_the_run(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 255, (6, 12, 12, 1), "uint8")
    y = np.arange(6) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y)
    inputs = keras.Input((None, None, 1))
    pooled = keras.layers.GlobalMaxPooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(pooled))
    write_run(tmp_path / "run", model, "float")
    file = tmp_path / "run/run.json"
    record = json.loads(file.read_text())
    record["settings"] |= {"loss": "mse", "image_size": [4, 4]}
    file.write_text(json.dumps(record))
    path = tmp_path / "r.html"
    code, _, err = run(
        *(capsys, "report", tmp_path / "run", "--points=0"),
        *(f"--data={tmp_path / 'd.npz'}", f"--output={path}"),
    )
    # As classes, labels up to 2 would not fit one output.
    assert code == 0, err
    small = np.stack([fit_image(image, (4, 4, 1)) for image in x])
    outputs = model.predict(0.5 * small - 0.25, verbose=0)
    found = json.loads(path.with_suffix(".json").read_text())
    (sharpness,) = found["sharpness"]["by_model"].values()
    expected = float(np.mean((outputs[:, 0] - y) ** 2))
    assert sharpness["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_best_epoch_where_the_run_has_not_ended(folder, tmp_path, capsys):
    shutil.copytree(folder / "early", tmp_path / "early")
    shutil.copy(folder / "qat/model.keras", tmp_path / "early/best.keras")
    (tmp_path / "early/history.csv").unlink()
    code, _, err = run(
        *(capsys, "report", tmp_path / "early"),
        f"--output={tmp_path / 'r.html'}",
    )
    assert code == 0 and "best.keras" in err
    page, report = read(tmp_path / "r.html")
    assert "training" not in report
    assert "62.50" in "".join(page.text)


ERRORS = {
    "nothing": "is neither the folder of a run",
    "model.tflite": "is neither the folder of a run",
    "nothing.keras": "is not a .keras file that exists",
    "broken.keras": "is not a readable .keras file",
    "empty": "is not the record of a run: [Errno 2] No such file",
    "unread": "is not the record of a run: Expecting",
    "listed": "is not the record of a run: it is no table",
    "odd": "is not the record of a run: its 'test' is no table",
    "wordy --data=data.npz": "does not say in numbers",
    "lossy --data=data.npz": "has the loss 'hinge'",
    "sized --data=data.npz": "does not say the size of its images",
    "torn": "is not the history of a run: could not convert",
    "short": "is not the history of a run: an epoch has no number",
    "other": "is not the history of a run: it has no column 'epoch'",
    "early": "has no model yet",
    "saq --compare=empty": "is not the record of a run",
    "saq --output=a.txt": "must end in '.html'",
    "saq --output=missing/a.html": "does not exist",
    "saq --output=policy.html": "another file of this name",
    "saq --data=nothing.npz": "nothing.npz",
    "saq --data=wide.npz": "takes inputs of shape (8, 8, 1)",
    "saq --data=labels.npz": "Labels must be from 0 to 9",
    "saq --data=data.npz --points=4": "`points` must be odd",
    "saq --float-model=nothing.keras": "is not a .keras file that exists",
    "saq --tflite=nothing.tflite": "cannot be read",
    "saq --tflite=broken.tflite": "is not a .tflite file",
    "float.keras --tflite=model.tflite": "is not quantized",
    "saq --policy=nothing.json": "policy file cannot be read",
    "saq --policy=broken.json": "policy",
    "saq --policy=preset.json": "was not found by a search",
    "saq --import=no_such_module": "No module named",
}


@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_message_and_exit_with_1(
    line, folder, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    code, _, err = run(capsys, "report", *line.split())
    assert code == 1
    assert "keras-saq report: " in err and ERRORS[line] in err
    assert "Traceback" not in err
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize(
    "line",
    ["", "saq qat", "saq --samples=0", "saq --rho=0", "saq --points=x"],
)
def test_wrong_usage_exits_with_2(line, capsys):
    code, out, err = run(capsys, "report", *line.split())
    assert code == 2 and out == "" and "usage: keras-saq" in err
