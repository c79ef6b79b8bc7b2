"""What commands do with faults: one message, nothing half done."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.cli import arguments
from keras_saq.cli import failures
from keras_saq.cli import files
from keras_saq.cli import inspect
from keras_saq.cli.lock import FolderLock
from keras_saq.plain_text import printable
from tests import networks
from tests.cli.commands import run

UGLY = "conv\x1b[2J\x07\r\u202e\u2028name"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust")
    x, y = networks.images(32)
    model = networks.sequential_network()
    model.save(folder / "float.keras")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    q.save(folder / "q.keras")
    keras_saq.export_litert(q, folder / "q.tflite")
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "x.npy", x)
    return folder


# Messages.


@pytest.mark.parametrize(
    "error, expected",
    [
        (ValueError("two\nlines"), "two\nlines"),
        (ValueError(""), "ValueError (--traceback shows where)"),
        (KeyError("kernel"), "KeyError: 'kernel' (--traceback"),
        (MemoryError(), "MemoryError (--traceback"),
        (AssertionError("no"), "AssertionError: no (--traceback"),
        (RuntimeError("first\nsecond"), "RuntimeError: first (--traceback"),
        (pickle.PicklingError("x" * 9999), "..."),
    ],
)
def test_messages(error, expected):
    text = failures.message(error)
    assert expected in text and len(text) < 600


@pytest.mark.parametrize("how", ["flag", "environment", None])
@pytest.mark.parametrize(
    "error", [RecursionError("deep"), UnicodeError("\x1b[2J"), KeyError()]
)
def test_every_exception_is_one_line(how, error, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr(inspect, "run", fail)
    if how == "environment":
        monkeypatch.setenv("KERAS_SAQ_TRACEBACK", "1")
    flags = ["--traceback"] if how == "flag" else []
    code, out, err = run(capsys, "inspect", "x.tflite", *flags)
    assert code == 1 and out == "" and "\x1b" not in err
    assert ("Traceback" in err) is (how is not None)
    assert err.splitlines()[-1].startswith("keras-saq inspect: ")
    if how is None:
        assert len(err.splitlines()) == 1


def test_names_are_printed_without_control_characters(tmp_path, capsys):
    from ai_edge_litert.tools import flatbuffer_utils

    x = np.ones((4, 3), "float32")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2, name=UGLY)(inputs))
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    q.save(tmp_path / "q.keras")
    report = keras_saq.export_litert(q, tmp_path / "q.tflite")
    assert [row.actual > 0 for row in report.layer_bytes] == [True]
    content = bytearray((tmp_path / "q.tflite").read_bytes())
    parsed = flatbuffer_utils.read_model_from_bytearray(content)
    parsed.subgraphs[0].tensors[1].name = UGLY
    parsed.description = UGLY
    (tmp_path / "ugly.tflite").write_bytes(
        flatbuffer_utils.convert_object_to_bytearray(parsed)
    )
    np.save(tmp_path / "x.npy", x)
    texts = [str(report), str(keras_saq.summary(q, print_fn=False))]
    for line in (
        ("inspect", tmp_path / "ugly.tflite"),
        ("inspect", tmp_path / "ugly.tflite", "--json"),
        ("export", tmp_path / "q.keras", tmp_path / "b.tflite"),
    ):
        code, out, err = run(capsys, *line)
        assert code == 0, err
        texts.append(out)
    # TensorFlow has no scope of such a name, and says so.
    line = ("verify", tmp_path / "q.tflite", tmp_path / "q.keras")
    code, _, err = run(capsys, *line, tmp_path / "x.npy")
    assert code == 1
    texts.append(err.partition("keras-saq verify: ")[2])
    for text in texts:
        assert set(printable(text, keep="\n\t")) == set(text)
        assert "conv[2J" in text.replace("\n", "")


@pytest.mark.parametrize("text", ["1e999999999", "9" * 5000, "1/0", "nan", ""])
def test_absurd_numbers_are_refused(text):
    for kind in (arguments.number, arguments.positive_integer):
        with pytest.raises(Exception, match="expected a"):
            kind(text)
    with pytest.raises(Exception, match="at most 2147483647"):
        arguments.natural_number("2147483648")


# Models.


def h5(folder, name="m.h5"):
    inputs = keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.save(folder / name)
    return model


@pytest.mark.filterwarnings("ignore:.*HDF5 file")
@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_models_in_h5_are_read(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    h5(tmp_path, name)
    np.save(tmp_path / "x.npy", np.eye(16, dtype="float32"))
    args = ("quantize", tmp_path / name, tmp_path / "q.keras", "--policy=w8a8")
    code, _, err = run(capsys, *args, f"--calibration={tmp_path / 'x.npy'}")
    assert code == 0, err
    code, _, err = run(capsys, "report", tmp_path / name, "--no-sharpness")
    assert code == 0, err


def test_what_is_no_model_file(folder, tmp_path, capsys):
    saved = tmp_path / "saved"
    saved.mkdir()
    cases = {saved: "is a folder"}
    (tmp_path / "tf").mkdir()
    (tmp_path / "tf" / "saved_model.pb").touch()
    cases[tmp_path / "tf"] = "is a SavedModel"
    (tmp_path / "m.h5").write_bytes(b"no HDF5")
    cases[tmp_path / "m.h5"] = "it is no HDF5 file"
    (tmp_path / "m.pt").touch()
    cases[tmp_path / "m.pt"] = "nor an .h5 file"
    for path, message in cases.items():
        code, out, err = run(capsys, "export", path, tmp_path / "a.tflite")
        assert code == 1 and message in err and not out, err


def changed_config(path, made, change):
    """A `.keras` file with another configuration."""
    import zipfile

    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config)
            new.writestr(name, content)


@pytest.mark.parametrize("number", [2**40, 10**30, -5, 3.7, 10**7])
def test_absurd_sizes_take_no_memory(number, folder, tmp_path, capsys):
    def change(config):
        layers = config["config"]["layers"]
        layers[-1]["config"]["units"] = number

    path = tmp_path / "m.keras"
    changed_config(folder / "float.keras", path, change)
    out = tmp_path / "q.keras"
    code, _, err = run(capsys, "quantize", path, out)
    assert code == 1 and "m.keras' is not a readable .keras file" in err, err
    assert "Traceback" not in err and not out.exists()


def test_unknown_classes_are_named(folder, tmp_path, capsys):
    def change(config):
        layer = config["config"]["layers"][-1]
        layer |= {
            "class_name": "Mine",
            "module": "mine",
            "registered_name": "M",
        }

    changed_config(folder / "float.keras", tmp_path / "m.keras", change)
    args = ("quantize", tmp_path / "m.keras", tmp_path / "q.keras")
    code, _, err = run(capsys, *args)
    assert code == 1 and "Could not locate class 'Mine'" in err
    assert "--import" in err


# Arrays.


def test_broken_arrays(tmp_path):
    import zipfile

    sound = tmp_path / "sound.npy"
    np.save(sound, np.zeros((4, 3), "float32"))
    content = sound.read_bytes()
    broken = {
        "empty": b"",
        "short": content[:-1],
        "header": content.replace(b"(4, 3)", b"(4, x)"),
        "huge": content.replace(b"(4, 3), } ", b"(4, 3000000000), }")[:200],
        "negative": content.replace(b"(4, 3)", b"(4,-3)"),
        "type": content.replace(b"<f4", b"|O8"),
        "magic": b"\x93NUMPY\x09" + content[7:],
    }
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for name, damaged in broken.items():
        path = tmp_path / f"{name}.npy"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name}.npy' is not a readable"):
            files.load_inputs(path, model)
    for name, array in {
        "text": np.array(["a", "b"]),
        "times": np.zeros(2, "datetime64[s]"),
        "records": np.zeros(2, [("a", "f4")]),
        "complex": np.zeros((2, 3), complex),
    }.items():
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=array)
        if name != "text":
            with pytest.raises(ValueError, match="expected numbers or text"):
                files.load_inputs(path, model)
        np.savez(path, x=array.reshape(2, -1), y=np.zeros(2))
        with pytest.raises(ValueError, match="numbers"):
            keras_saq.data.open_source(path).load("train")
    np.save(sound, np.float32(3))
    with pytest.raises(ValueError, match="single numbers"):
        files.load_inputs(sound, model)
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("x", b"no array")
    with pytest.raises(ValueError, match="not a readable|no array"):
        files.load_inputs(tmp_path / "other.npz", model)


def test_integers_that_do_not_fit_are_refused(tmp_path):
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(9, 4)(inputs)
    x = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    data = np.arange(9).reshape(3, 3)
    q = keras_saq.quantize_model(
        keras.Model(inputs, x), "w8a8", calibration=data.astype("int32")
    )
    keras_saq.export_litert(q, tmp_path / "m.tflite")
    verify = keras_saq.verify_litert
    assert verify(tmp_path / "m.tflite", q, data.astype("int64")).exact > 0
    for bad in (data + 2**32, data - 2**40, data + 0.5):
        with pytest.raises(ValueError, match="do not fit into int32"):
            verify(tmp_path / "m.tflite", q, bad)
    np.savez(tmp_path / "d.npz", x=data, y=np.array([0, 1, 2**32 + 1]))
    with pytest.raises(ValueError, match="labels, 1 of 3 do not fit"):
        keras_saq.data.open_source(tmp_path / "d.npz").load("train")


# Two at once, killed, full.


def wait_for(path):
    for _ in range(600):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_a_folder_is_one_run_s_at_a_time(folder, tmp_path, capsys):
    line = ("train", folder / "q.keras", f"--data={folder / 'data.npz'}")
    line += ("--epochs=1", "--method=qat", f"--output={tmp_path / 'run'}")
    code, _, err = run(capsys, *line, "--test-split=none")
    assert code == 0, err
    assert not (tmp_path / "run" / ".lock").exists()
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from keras_saq.cli.lock import FolderLock; "
            "lock = FolderLock(sys.argv[1]); time.sleep(600)",
            str(tmp_path / "run"),
        ],
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    try:
        wait_for(tmp_path / "run" / ".lock")
        code, _, err = run(capsys, *line, "--test-split=none")
        assert code == 1 and f"Another process (process {holder.pid})" in err
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    # What it left behind locks nothing.
    assert (tmp_path / "run" / ".lock").exists()
    code, _, err = run(capsys, *line, "--test-split=none")
    assert code == 0, err
    assert not (tmp_path / "run" / ".lock").exists()


def test_locks_of_one_process(tmp_path):
    with FolderLock(tmp_path):
        with pytest.raises(ValueError, match="Another process"):
            FolderLock(tmp_path)
    with FolderLock(tmp_path):
        pass
    (tmp_path / ".lock").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="cannot be locked"):
        FolderLock(tmp_path)


_FAULTY = """
import os, resource, signal, sys
from keras_saq.cli import main
import keras_saq.export, keras_saq.models
folder, out, fault = sys.argv[1:]
if fault == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
else:
    os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
for line in (
    f"export {folder}/q.keras {out}/q.tflite --verify={folder}/x.npy",
    f"quantize {folder}/float.keras {out}/new.keras",
    f"verify {folder}/q.tflite {folder}/q.keras {folder}/x.npy",
):
    print(main.main(main.parse(["keras-saq", *line.split()])), file=sys.stderr)
"""


@pytest.mark.parametrize("fault", ["full", "killed"])
def test_faults_leave_older_files(fault, folder, tmp_path):
    for name in ("q.tflite", "new.keras"):
        (tmp_path / name).write_text("older")
    done = subprocess.run(
        [sys.executable, "-c", _FAULTY, folder, tmp_path, fault],
        capture_output=True,
        text=True,
    )
    for name in ("q.tflite", "new.keras"):
        assert (tmp_path / name).read_text() == "older"
    assert "Traceback" not in done.stderr
    if fault == "killed":
        assert done.returncode == -signal.SIGKILL
        return
    assert done.returncode == 0, done.stderr
    codes = [line for line in done.stderr.splitlines() if line.isdigit()]
    assert codes == ["1", "1", "0"], done.stderr
    assert done.stderr.count("File too large") >= 1
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["new.keras", "q.tflite"]


def resident_bytes(pid="self"):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmRSS"].split()[0]) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux")
@pytest.mark.filterwarnings("ignore:The quantized model is far")
def test_many_exports_take_no_memory(tmp_path):
    from keras_saq.export import isolated

    x = np.ones((4, 512), "float32")
    inputs = keras.Input((512,))
    y = keras.layers.Dense(2048, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2048)(y))
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)

    def export():
        report = keras_saq.export_litert(q, tmp_path / "m.tflite", verify=x)
        return report.file_bytes

    size = [export() for _ in range(3)][0]
    child = isolated._shared._child.pid
    before = resident_bytes(), resident_bytes(child)
    for _ in range(10):
        export()
    after = resident_bytes(), resident_bytes(child)
    # Ten files would be 50 MB.
    for a, b in zip(before, after):
        assert b - a < 5 * size, (before, after)
