"""Step times of float, QAT and SAQ training, as ratios from one run.

    python benchmarks/step_time.py --bits=w4a4 --rounds=5

Pre-activation ResNet-20 at batch 128 on random images. The three take turns,
round by round, so that a machine whose speed drifts slows all of them; the
medians' ratios are what to read.
"""

import importlib.util
import pathlib
import statistics
import time

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.report.table import format_table

FLAGS = flags.FLAGS
ROOT = pathlib.Path(__file__).resolve().parents[1]


def resnet20():
    path = ROOT / "examples/cifar_resnet20.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet20", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.preact_resnet20(100)


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA on CPU is slower for all three.
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    return model


def seconds_per_step(model, x, y):
    start = time.perf_counter()
    model.fit(x, y, batch_size=FLAGS.batch_size, shuffle=False, verbose=0)
    return (time.perf_counter() - start) / FLAGS.steps


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    rng = np.random.default_rng(0)
    count = FLAGS.steps * FLAGS.batch_size
    x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 100, count)
    model = resnet20()

    def quantized():
        policy = keras_saq.QuantizePolicy.preset(
            FLAGS.bits, scheme=FLAGS.scheme
        )
        return keras_saq.quantize_model(model, policy, calibration=x[:128])

    models = {
        "float": compiled(model),
        "QAT": compiled(quantized()),
        "SAQ": compiled(keras_saq.SAQModel(quantized(), rho=0.1)),
    }
    times = {name: [] for name in models}
    for number in range(FLAGS.rounds + 1):
        for name, each in models.items():
            seconds = seconds_per_step(each, x, y)
            if number:  # the first round compiles
                times[name].append(seconds)
    medians = {name: statistics.median(t) for name, t in times.items()}
    rows = [
        (
            name,
            f"{1e3 * medians[name]:.0f}",
            f"{1e3 * min(times[name]):.0f} to {1e3 * max(times[name]):.0f}",
            f"{medians[name] / medians['float']:.2f}",
            f"{medians[name] / medians['QAT']:.2f}",
        )
        for name in models
    ]
    print(
        f"ResNet-20, batch {FLAGS.batch_size}, {FLAGS.bits} {FLAGS.scheme}, "
        f"{keras.backend.backend()}, {FLAGS.rounds} rounds of {FLAGS.steps} "
        "steps in turn"
    )
    header = ("training", "ms/step", "min to max", "x float", "x QAT")
    print(format_table(header, rows))


if __name__ == "__main__":
    flags.DEFINE_string("bits", "w4a4", "Preset.")
    flags.DEFINE_enum("scheme", "litert", ["litert", "paper"], "Scheme.")
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    flags.DEFINE_integer("steps", 8, "Steps per round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Counted rounds.", lower_bound=1)
    app.run(main)
