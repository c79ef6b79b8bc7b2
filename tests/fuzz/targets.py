"""Sound files, and the commands and functions that read them.

A target takes a damaged file and returns what became of it: `"accepted"`,
`"refused"`, or `"unnamed"` where only the last resort of the command line had
something to say. Whatever else it raises has escaped.
"""

import contextlib
import io
import json
import pathlib
import random

import keras
import numpy as np

import keras_saq
from keras_saq.cli import files
from keras_saq.cli import main
from keras_saq.cli import report as report_command
from keras_saq.cli.run_folder import RunFolder
from keras_saq.data import open_source
from keras_saq.export.lower import lower_model
from keras_saq.export.verify import verify_content
from keras_saq.search.latency import LatencyTable
from tests.fuzz import mutations

_TOML = """\
model = "float.keras"
data = "data.npz"
scale = "1/255"
mean = [0.5, 0.5]
policy = "w4a8"
augment = "shift_flip"
epochs = 10
batch-size = 32
learning-rate = 1e-3
import = ["os"]
json = false
output = "run"
"""
_SETTINGS = {"output": "run", "method": "qat", "seed": 0, "scale": 1.0}


def make_files(folder):
    """Writes one sound file of each kind."""
    folder = pathlib.Path(folder)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Add()([x, keras.layers.Activation("swish")(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, activation="softmax", name="head")(x)
    model = keras.Model(inputs, x, name="small")
    samples = rng.normal(size=(8, 6, 6, 2)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=samples)
    model.save(folder / "float.keras")
    model.save(folder / "float.h5")
    q.save(folder / "q.keras")
    keras_saq.export_litert(q, folder / "q.tflite")
    np.save(folder / "x.npy", samples)
    np.savez(folder / "data.npz", x=samples, y=np.arange(8) % 3)
    np.savez_compressed(folder / "packed.npz", x=samples, y=np.arange(8) % 3)
    keras_saq.QuantizePolicy(
        rules=(
            keras_saq.Rule(path="head", weight_bits=8, activation_bits=8),
            keras_saq.Rule(path="(gate|on)+/.*", keep_float=True),
            keras_saq.Rule(layer_type="Conv2D", weight_bits=4),
            keras_saq.Rule(weight_bits=4, weight_quantizer="dorefa"),
        ),
        activation_quantizer=keras_saq.quantizers.LSQ(8),
    ).save(folder / "policy.json")
    LatencyTable({"Dense 4": {8: 2e-6, 4: 3e-6}}, "here", 1).save(
        folder / "latency.json"
    )
    (folder / "run.toml").write_text(_TOML)
    RunFolder(folder / "run", [], _SETTINGS, {}).create()
    record = json.loads((folder / "run" / "run.json").read_text())
    record |= {"epochs_done": 1, "test": {"accuracy": 0.5}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "settings.json").write_text(
        json.dumps(
            {"epochs": 3, "model": "m.keras", "std": [1, 2], "data": "a"}
            | {"output": "run"}
        )
    )


class Targets:
    """Runs damaged files; what is expensive is made once.

    Args:
        folder: where `make_files` wrote.
        scratch: an empty folder.
    """

    def __init__(self, folder, scratch):
        self._folder = pathlib.Path(folder)
        self._scratch = pathlib.Path(scratch)
        self._model = keras.saving.load_model(self._folder / "q.keras")
        self._program = lower_model(self._model)
        self._float = keras.saving.load_model(self._folder / "float.keras")
        self._x = np.load(self._folder / "x.npy")

    def run(self, name, seed):
        """`(outcome, message)` of a file, damaged unless `seed` is `None`."""
        source, mutate, read = TARGETS[name]
        content = (self._folder / source).read_bytes()
        if seed is not None:
            # Of the name too: else all targets would draw the same numbers.
            content = mutate(content, random.Random(f"{name} {seed}"))
        path = self._scratch / source
        path.write_bytes(content)
        return getattr(self, read)(path)

    def _command(self, *args):
        out, err = io.StringIO(), io.StringIO()
        args = ["keras-saq", *map(str, args)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main.main(main.parse(args))
            except SystemExit as error:
                code = error.code
        text = err.getvalue()
        if "Traceback" in text or code not in (0, 1, 2, 3):
            raise AssertionError(f"exit code {code}: {text[-2000:]}")
        if code == 0:
            return "accepted", ""
        last = text.strip().splitlines()[-1] if text.strip() else ""
        if code != 3 and not last:
            raise AssertionError(f"exit code {code} without a message")
        if "--traceback shows where" in text:
            return "unnamed", last
        return "refused", last

    @staticmethod
    def _call(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except (ValueError, OSError) as error:
            return "refused", str(error)
        return "accepted", ""

    def inspect(self, path):
        return self._command("inspect", path, "--json")

    def verify(self, path):
        return self._call(
            verify_content,
            path.read_bytes(),
            path,
            self._model,
            self._program,
            self._x,
        )

    def export(self, path):
        return self._command("export", path, self._scratch / "out.tflite")

    def quantize(self, path):
        calibration = f"--calibration={self._folder / 'x.npy'}"
        return self._command(
            "quantize", path, self._scratch / "out.keras", calibration
        )

    def policy(self, path):
        return self._call(
            keras_saq.quantize_model, self._float, path, calibration=self._x
        )

    def config(self, path):
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main.parse(["keras-saq", "train", f"--config={path}"])
            except SystemExit as error:
                if error.code != 2:
                    raise
        text = err.getvalue().strip()
        return ("refused" if text else "accepted"), text[-200:]

    def record(self, path):
        run = self._scratch / "run"
        run.mkdir(exist_ok=True)
        (run / "model.keras").touch()
        (run / "run.json").write_bytes(path.read_bytes())
        outcome = self._call(report_command._Run, run)

        def open_folder():
            RunFolder(run, [], _SETTINGS, {}).release()

        return max(outcome, self._call(open_folder))

    def latency(self, path):
        return self._call(LatencyTable.load, path)

    def inputs(self, path):
        return self._call(files.load_inputs, path, self._float)

    def samples(self, path):
        def load():
            source = open_source(path)
            source.load(source.train_split, (6, 6, 2))

        return self._call(load)


# Name: the sound file, how it is damaged, what reads it.
TARGETS = {
    "tflite inspect": ("q.tflite", mutations.mutated_tflite, "inspect"),
    "tflite verify": ("q.tflite", mutations.mutated_tflite, "verify"),
    "keras export": ("q.keras", mutations.mutated_zip, "export"),
    "keras quantize": ("float.keras", mutations.mutated_zip, "quantize"),
    "h5 quantize": ("float.h5", mutations.mutated_bytes, "quantize"),
    "json policy": ("policy.json", mutations.mutated_json, "policy"),
    "json config": ("settings.json", mutations.mutated_json, "config"),
    "json record": ("run.json", mutations.mutated_json, "record"),
    "json latency": ("latency.json", mutations.mutated_json, "latency"),
    "toml config": ("run.toml", mutations.mutated_toml, "config"),
    "npz samples": ("data.npz", mutations.mutated_zip, "samples"),
    "npz packed": ("packed.npz", mutations.mutated_bytes, "samples"),
    "npz inputs": ("data.npz", mutations.mutated_bytes, "inputs"),
    "npy inputs": ("x.npy", mutations.mutated_bytes, "inputs"),
}
