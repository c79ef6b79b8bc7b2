"""`keras-saq quantize` and `train`, end to end on small real data."""

import argparse
import csv
import json

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.cli import quantize
from keras_saq.cli import run_folder
from keras_saq.cli import train
from keras_saq.cli import training
from keras_saq.data import Samples
from keras_saq.models import quantized_layers
from keras_saq.models.calibration import uncalibrated_layers
from tests import networks
from tests.cli import commands
from tests.cli.commands import run

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="once is enough"
)
pytestmark = pytest.mark.filterwarnings("ignore:Much of these kernels")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    model = commands.trained_network()
    model.save(folder / "float.keras")
    quantized = keras_saq.quantize_model(model, "w4a8")
    quantized.save(folder / "uncalibrated.keras")
    commands.network(3).save(folder / "three.keras")
    commands.write_digits(folder / "digits.npz")
    commands.write_image_folder(folder / "images")
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def accuracy_of(path):
    """Of a saved model, on the test images."""
    with np.load("digits.npz") as data:
        x, y = data["x_test"] / np.float32(255), data["y_test"]
    predicted = keras.saving.load_model(path).predict(x, verbose=0)
    return (predicted.argmax(-1) == y).mean()


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


TRAIN = ("train", "float.keras", "--data=digits.npz", "--scale=1/255")


def test_quantize(inside, capsys):
    code, out, err = run(
        *(capsys, "quantize", "float.keras", "q.keras", "--policy=w3a4"),
        *("--calibration=digits.npz", "--scale=1/255", "--json"),
        *("--first-last-bits=none", "--stream-bits=6"),
    )
    assert code == 0, err
    report = json.loads(out)
    assert {row["weight_bits"] for row in report["layers"]} == {3}
    assert report["calibrated"] and report["floats"] == []
    model = keras.saving.load_model("q.keras")
    assert accuracy_of("q.keras") > 0.5
    activations = [layer.output_quantizer for layer in quantized_layers(model)]
    assert {q.num_bits for q in activations if q is not None} == {4, 6}


def test_quantize_without_data(inside, capsys):
    code, out, _ = run(capsys, "quantize", "float.keras", "u.keras")
    assert code == 0 and "they come from the first training batch" in out
    assert uncalibrated_layers(keras.saving.load_model("u.keras"))
    code, out, _ = run(
        *(capsys, "quantize", "float.keras", "w.keras", "--policy=w4"),
        *("--weight-quantizer=dorefa",),
    )
    assert code == 0 and "float" in out


def test_saq_with_everything(inside, capsys):
    code, out, err = run(
        *(capsys, *TRAIN, "--output=saq", "--policy=w4a8", "--epochs=2"),
        *("--rho=0.1", "--teacher=float.keras", "--augment=shift", "--json"),
        *("--batch-size=32", "--optimizer=adam", "--warmup-epochs=0.5"),
        *("--tensorboard", "--freeze-scales=1", "--reestimate-batch-norm"),
        *("--sharpness-samples=32", "--export=saq.tflite"),
    )
    assert code == 0, err
    record = json.loads(out)
    output = inside / "saq"
    assert record == json.loads((output / "run.json").read_text())
    assert record["method"] == "saq" and record["epochs_done"] == 2
    assert record["settings"]["rho"] == 0.1 and record["seed"] == 0
    assert record["data"] == {
        **{"name": "digits.npz", "train": 234, "validation": 26, "test": 100},
        **{"input_shape": [8, 8, 1], "classes": 10},
    }
    assert record["float_test"]["accuracy"] > 0.7
    assert record["test"]["accuracy"] > 0.7
    assert record["before_test"]["accuracy"] > 0.5
    assert record["export"]["reference_exact"] is True
    assert record["export"]["file_bytes"] == (
        (inside / "saq.tflite").stat().st_size
    )
    names = {path.name for path in output.iterdir()}
    assert names == {
        *("best.keras", "history.csv", "model.keras", "run.json"),
        "tensorboard",
    }
    assert list((output / "tensorboard").iterdir())
    history = rows(output / "history.csv")
    assert [row["epoch"] for row in history] == ["0", "1"]
    for name in ("val_accuracy", "code_flip_rate", "sharpness", "loss"):
        assert np.isfinite([float(row[name]) for row in history]).all()
    assert history[0]["weight_scale"] != history[1]["weight_scale"] or (
        float(history[1]["epoch"]) == 1
    )
    # The file is the model that was tested.
    accuracy = accuracy_of(output / "model.keras")
    assert accuracy == pytest.approx(record["test"]["accuracy"])
    best = max(float(row["val_accuracy"]) for row in history)
    assert record["best"]["val_accuracy"] == pytest.approx(best)


def test_an_interrupted_run_comes_to_the_same(inside, capsys, monkeypatch):
    flags = (*TRAIN, "--epochs=3", "--augment=shift", "--optimizer=adam")
    flags = (*flags, "--method=qat", "--test-split=none")
    code, _, err = run(capsys, *flags, "--output=whole")
    assert code == 0, err
    stops = [KeyboardInterrupt, RuntimeError]
    backup = run_folder.RunFolder.backup

    def then_stop(self, model, epochs):
        backup(self, model, epochs)
        # A row that is written before the state is.
        raise stops.pop(0)

    flags = (*flags, "--output=parts")
    monkeypatch.setattr(run_folder.RunFolder, "backup", then_stop)
    code, _, err = run(capsys, *flags)
    assert code == 130 and "The same command goes on there" in err
    code, _, err = run(capsys, *flags)
    assert code == 1 and "RuntimeError (--traceback shows where)" in err
    monkeypatch.undo()
    monkeypatch.chdir(inside)
    # Killed between the row and the state, and while the state was written.
    with (inside / "parts/history.csv").open("a", encoding="utf-8") as file:
        file.write("2,0.1,0.1,0.1,0.1")
    (inside / "parts/backup/part.weights.h5").write_bytes(b"half")
    code, out, err = run(capsys, *flags)
    assert code == 0, err
    assert "going on after epoch 2 of 3" in out
    assert rows(inside / "parts/history.csv") == rows(
        inside / "whole/history.csv"
    )
    networks.assert_same_variables(
        *(
            keras.saving.load_model(inside / name / "model.keras")
            for name in ("whole", "parts")
        )
    )
    # Once more: it is finished. With other settings: refused.
    code, out, _ = run(capsys, *flags)
    assert code == 0 and "is finished; nothing was trained" in out
    code, out, _ = run(capsys, "train", "--config=parts/run.json", "--json")
    assert code == 0 and json.loads(out)["epochs_done"] == 3
    code, _, err = run(capsys, *flags, "--rho=0.5", "--seed=1")
    assert code == 1
    assert "--rho: 0.05 there, 0.5 here" in err
    assert "--seed: 0 there, 1 here" in err
    (inside / "copy.keras").write_bytes((inside / "three.keras").read_bytes())
    code, _, err = run(capsys, "train", "copy.keras", *flags[2:])
    assert code == 1 and "--model: the file's content is another" in err


def test_the_end_of_a_run_can_be_done_again(inside, capsys, monkeypatch):
    flags = (*TRAIN, "--output=ended", "--method=qat", "--epochs=2")
    flags = (*flags, "--limit-steps=2", "--batch-size=32", "--limit-test=20")
    flags = (*flags, "--reestimate-batch-norm", "--verify-samples=20")
    flags = (*flags, "--mixed-precision=mixed_bfloat16")
    record, seen = inside / "ended/run.json", []
    measure = training.callbacks.reestimate_batch_norm

    def reestimate(model, part):
        part = list(part)
        status = json.loads(record.read_text())["status"]
        seen.append((status, [y.tolist() for _, y in part]))
        if len(seen) == 1:
            raise KeyboardInterrupt
        return measure(model, iter(part))

    monkeypatch.setattr(training.callbacks, "reestimate_batch_norm", reestimate)
    code, _, err = run(capsys, *flags)
    assert code == 130 and "2 of 2 epochs are saved" in err
    assert json.loads(record.read_text())["status"] == "interrupted"
    code, _, err = run(capsys, *flags)
    assert code == 0, err
    assert seen[0] == seen[1] and seen[0][0] == "running"
    model = keras.saving.load_model("ended/best.keras")
    assert {x.dtype_policy.name for x in model._flatten_layers()} == {"float32"}
    # An export that comes later, and one that deviated.
    export = (*flags, "--export=ended.tflite")
    code, out, err = run(capsys, *export)
    assert code == 0, err
    assert "nothing was trained" in out and (inside / "ended.tflite").is_file()
    found = json.loads(record.read_text())
    assert found["export"]["within_bounds"] and len(seen) == 2
    found["export"]["within_bounds"] = False
    record.write_text(json.dumps(found))
    assert run(capsys, *export)[0] == 3


def test_samples_for_scales_are_of_all_classes(tmp_path):
    x = np.repeat(np.arange(1000, dtype="float32")[:, None], 4, 1)
    args = argparse.Namespace(calibration_samples=1000, seed=0)
    chosen = train._calibration_samples(args, Samples(x, x[:, 0], "sorted"))
    assert len(chosen) == 512 and chosen.y.max() > 950
    path = str(tmp_path / "x.npy")
    np.save(path, x)
    args = argparse.Namespace(
        **{"calibration": path, "calibration_samples": 1000},
        **{"scale": 1.0, "mean": (0.0,), "std": (1.0,), "data_free": False},
    )
    inputs = keras.Input((4,))
    chosen = quantize._calibration(args, keras.Model(inputs, inputs))
    assert len(chosen) == 512 and chosen.max() > 950


@on_tensorflow
def test_quantize_where_the_costs_are_not_known(tmp_path, capsys):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.save(tmp_path / "any.keras")
    args = ("quantize", tmp_path / "any.keras", tmp_path / "q.keras")
    code, out, err = run(capsys, *args)
    assert code == 0 and "written to" in out
    assert "note: the costs are not known" in err
    code, out, err = run(capsys, *args, "--json")
    assert code == 0 and json.loads(out)["calibrated"] is False


@on_tensorflow
@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
def test_quantize_resizes_images_of_an_npz(names, inside, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 255, (9, 11, 11, 3), "uint8")
    path = tmp_path / "large.npz"
    np.savez(path, **dict(zip(names, (images, np.arange(9)))))
    code, out, err = run(
        *(capsys, "quantize", "float.keras", tmp_path / "q.keras"),
        *(f"--calibration={path}", "--scale=1/255", "--json"),
    )
    assert code == 0, err
    assert json.loads(out)["calibrated"]


def test_image_folder_and_a_quantized_model(inside, capsys):
    code, _, err = run(
        capsys, "quantize", "three.keras", "three_q.keras", "--policy=w4a4"
    )
    assert code == 0, err
    code, out, err = run(
        *(capsys, "train", "three_q.keras", "--data=images", "--method=qat"),
        *("--scale=1/255", "--epochs=2", "--batch-size=6", "--output=folder"),
        *("--augment=shift_flip", "--validation-split=0.2"),
        *("--mixed-precision=mixed_bfloat16", "--limit-steps=1"),
    )
    assert code == 0, err
    assert "18 test samples of shape (8, 8, 1), 3 classes" in out
    assert "taking missing scales from" in out
    assert "warning" in err or "chance" not in err
    model = keras.saving.load_model("folder/model.keras")
    assert not uncalibrated_layers(model)
    assert {x.dtype_policy.name for x in model._flatten_layers()} == {"float32"}


@on_tensorflow
def test_regression_in_float(inside, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)).astype("float32")
    np.savez("numbers.npz", x=x, y=x[:, :2] @ rng.normal(size=(2, 2)))
    inputs = keras.Input((6,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save("line.keras")
    code, out, err = run(
        *(capsys, "train", "line.keras", "--data=numbers.npz", "--epochs=4"),
        *("--method=float", "--output=line", "--batch-size=8"),
        *("--learning-rate=0.1", "--schedule=constant"),
        *("--test-split=train",),
    )
    assert code == 0, err
    assert "loss: MeanSquaredError" in out
    record = json.loads((inside / "line/run.json").read_text())
    assert record["float_test"] is None
    assert record["test"]["loss"] < 0.1 * record["before_test"]["loss"]
    losses = [float(row["loss"]) for row in rows(inside / "line/history.csv")]
    assert losses == sorted(losses, reverse=True)


@on_tensorflow
def test_half_precision_scales_the_loss(inside, capsys):
    code, _, err = run(
        *(capsys, *TRAIN, "--output=half", "--epochs=1", "--limit-steps=2"),
        *("--mixed-precision=mixed_float16", "--method=qat"),
        *("--validation-split=0", "--limit-test=20"),
    )
    assert code == 0, err
    assert not (inside / "half/best.keras").exists()
    (row,) = rows(inside / "half/history.csv")
    assert np.isfinite(float(row["loss"]))


def test_ctrl_c_before_the_first_epoch(inside, capsys, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stop)
    code, _, err = run(capsys, *TRAIN, "--output=early", "--test-split=none")
    assert code == 130 and "0 of 10 epochs are saved" in err


@on_tensorflow
def test_a_loss_that_is_not_finite_ends_the_run(inside, capsys):
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    np.savez("far.npz", x=x, y=x[:, :2])
    inputs = keras.Input((5,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save("far.keras")
    code, _, err = run(
        *(capsys, "train", "far.keras", "--data=far.npz", "--output=far"),
        *("--method=float", "--epochs=9", "--validation-split=0"),
        *("--learning-rate=1e9", "--batch-size=8"),
    )
    assert code == 1 and "The loss is not finite" in err
    record = json.loads((inside / "far/run.json").read_text())
    assert record["epochs_done"] < 9 and record["status"] == "running"


ERRORS = {
    "quantize nothing.keras a.keras": "is not a .keras file that exists",
    "quantize float.keras a.txt": "must end in '.keras'",
    "quantize float.keras missing/a.keras": "does not exist",
    "quantize float.keras a.keras --policy=w9x": "Unknown preset",
    "quantize float.keras a.keras --policy=w44a8": "bits",
    "quantize float.keras a.keras --policy=no.json": "cannot be read",
    "quantize float.keras a.keras --policy=bad.json": "policy",
    "quantize float.keras a.keras --weight-quantizer=lsk": "Did you mean",
    "quantize float.keras a.keras --calibration=wide.npz": "takes inputs of",
    "quantize float.keras a.keras --calibration=no.npz": "not a readable",
    "quantize float.keras a.keras --calibration=empty": "has no folders",
    "quantize float.keras a.keras --calibration=nan.npy": "must be finite",
    "quantize uncalibrated.keras a.keras": "is quantized already",
    "train nothing.keras --data=digits.npz": "is not a .keras file",
    "train broken.keras --data=digits.npz": "is not a readable .keras file",
    "train float.keras --data=nothing.npz": "not a readable .npz",
    "train float.keras --data=empty": "has no folders",
    "train float.keras --data=no_images": "has no images",
    "train float.keras --data=./nowhere": "is no data set",
    "train float.keras --data=wide.npz": "takes inputs of shape (8, 8, 1)",
    "train float.keras --data=nan.npz": "in 1 of 8 samples, the first of which "
    "is number 3",
    "train three.keras --data=digits.npz": "Labels must be from 0 to 2",
    "train float.keras --data=unlabelled.npz": "samples of `--test-split` do "
    "not fit: Labels must be from 0 to 9",
    "train float.keras --data=digits.npz --teacher=soft.keras": (
        "softmax probabilities"
    ),
    "train float.keras --data=lengths.npz": "as many labels",
    "train float.keras --data=objects.npz": "not a readable .npz file",
    "train float.keras --data=digits.npz --policy=w9x": "Unknown preset",
    "train float.keras --data=digits.npz --train-split=tset": "no split",
    "train float.keras --data=digits.npz --std=0": "`std` not zero",
    "train float.keras --data=digits.npz --mean=1,2": "one per channel",
    "train float.keras --data=digits.npz --loss=mse": "do not fit outputs",
    "train float.keras --data=digits.npz --method=float --policy=w4a8": (
        "`--policy` is for a quantized model"
    ),
    "train float.keras --data=digits.npz --method=float --export=a.tflite": (
        "`--export` is for a quantized model"
    ),
    "train float.keras --data=digits.npz --scheme=paper --export=a.tflite": (
        "needs the scheme 'litert'"
    ),
    "train float.keras --data=digits.npz --export=a.txt": "end in '.tflite'",
    "train float.keras --data=digits.npz --export=no/a.tflite": "not exist",
    "train float.keras --data=digits.npz --freeze-scales=10": "after the last",
    "train float.keras --data=digits.npz --teacher=no.keras": "is not a .keras",
    "train uncalibrated.keras --data=digits.npz --policy=w4a8": (
        "is quantized already, so `--policy` would change nothing"
    ),
    "train uncalibrated.keras --data=digits.npz --method=float": (
        "is quantized, and `--method=float`"
    ),
    "train two.keras --data=digits.npz": "has 2 inputs",
    "train flat.keras --data=flat.npz --augment=flip": "is for images",
    "train float.keras --data=digits.npz --output=in_the_way": "is a file",
    "train float.keras --data=digits.npz --output=images": "holds no run",
    "train float.keras --data=digits.npz --output=other_run": (
        "is not the record of a run"
    ),
    "train float.keras --data=digits.npz --output=in_the_way/run": (
        "in_the_way"
    ),
}


@pytest.fixture
def bad_things(inside):
    """What the errors are about."""
    x = np.zeros((8, 8, 8, 1), "float32")
    np.savez("wide.npz", x=np.zeros((8, 8), "float32"), y=np.arange(8))
    np.savez("lengths.npz", x=x, y=np.arange(7))
    unlabelled = {"x_test": x, "y_test": np.full(8, -1)}
    np.savez("unlabelled.npz", x=x, y=np.arange(8), **unlabelled)
    commands.network(10, "softmax").save("soft.keras")
    np.savez("objects.npz", x=x, y=np.array([{}] * 8, object))
    np.savez("flat.npz", x=np.zeros((8, 5), "float32"), y=np.arange(8) % 2)
    np.save("nan.npy", x * np.nan)
    x[3, 4] = np.inf
    np.savez("nan.npz", x=x, y=np.arange(8))
    inputs = [keras.Input((4,)), keras.Input((4,))]
    total = keras.layers.Add()(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(total)).save("two.keras")
    inputs = keras.Input((5,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save("flat.keras")
    (inside / "bad.json").write_text('{"rules": 3}')
    (inside / "broken.keras").write_bytes(b"no model")
    (inside / "in_the_way").write_text("")
    for name in ("empty", "no_images/cat", "other_run"):
        (inside / name).mkdir(parents=True, exist_ok=True)
    (inside / "other_run/run.json").write_text("[1]")
    return inside


@on_tensorflow
@pytest.mark.parametrize("line", ERRORS)
def test_errors_are_one_message_and_exit_with_1(line, bad_things, capsys):
    if line.startswith("train") and "--output" not in line:
        line += " --output=new"
    before = sorted(p.name for p in bad_things.iterdir())
    code, out, err = run(capsys, *line.split())
    message = ERRORS[line.removesuffix(" --output=new")]
    assert code == 1 and message in err and "Traceback" not in err
    assert sorted(p.name for p in bad_things.iterdir()) == before


@pytest.mark.parametrize(
    "line, message",
    [
        ("train", "required"),
        ("train a.keras --output=b", "--data"),
        ("train a.keras --data=b", "--output"),
        ("train a.keras --data=b --output=c --rho=-1", "not negative"),
        ("train a.keras --data=b --output=c --epochs=0", "at least 1"),
        ("train a.keras --data=b --output=c --learning-rate=0", "above 0"),
        ("train a.keras --data=b --output=c --method=sqa", "invalid choice"),
        ("train a.keras --data=b --output=c --strategy=x", "invalid choice"),
        ("train a.keras --data=b --output=c --case=4", "invalid choice"),
        ("train a.keras --data=b --output=c --scale=1/0", "a number such as"),
        ("train a.keras --data=b --output=c --image-size=1,2,3", "HEIGHT"),
        ("train a.keras --data=b --output=c --validation-split=1", "below 1"),
        ("train a.keras --data=b --output=c --distillation-weight=2", "to 1"),
        ("quantize a.keras", "required"),
        ("quantize a.keras b.keras --scheme=x", "invalid choice"),
        ("quantize a.keras b.keras --stream-bits=x", "at least 1"),
    ],
)
def test_wrong_usage_exits_with_2(line, message, capsys):
    code, out, err = run(capsys, *line.split())
    assert code == 2 and out == "" and message in err
    assert "usage: keras-saq" in err
