"""Step time and memory of a supernet, as ratios to quantization-aware training.

    python benchmarks/supernet_step.py --rounds=5
    python benchmarks/supernet_step.py --memory

Pre-activation ResNet-20 on random images. Training with one number of bits,
and supernets with one to five candidates, take turns; the medians of the
ratios of a round are what to read, those of processor time where other
programs run.
"""

import statistics

import cifar
import keras
import numpy as np
import timing
from absl import app
from absl import flags

import keras_saq
from keras_saq.search import training
from keras_saq.table import format_table

FLAGS = flags.FLAGS
CANDIDATES = {"1 candidate": (4,), "2": (2, 4), "5": (2, 3, 4, 5, 6)}
QAT = "QAT"


def trainer(name, x, y):
    """A compiled model: plain QAT, or a supernet with the search's loss."""
    model = cifar.example.preact_resnet20(100)
    if name == QAT:
        policy = keras_saq.QuantizePolicy.preset("w4a4", scheme=FLAGS.target)
        q = keras_saq.quantize_model(model, policy, calibration=x[:64])
        q.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return q
    search = keras_saq.PolicySearch(
        model, (x, y), candidates=CANDIDATES[name], target=FLAGS.target
    )
    supernet = search.prepare_supernet()
    limits = keras_saq.Budget(bops="w4a4").resolve(search.space)
    margin = training.make_margin(search, supernet)
    return training.compiled(search, supernet, limits, 100, margin, False)


def peak_memory(name):
    """Peak resident memory of a process that trains one way, in MB."""
    same = [f"--target={FLAGS.target}", f"--batch_size={FLAGS.batch_size}"]
    return timing.peak_memory(__file__, f"--only={name}", *same, "--steps=2")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    rng = np.random.default_rng(0)
    count = FLAGS.steps * FLAGS.batch_size
    x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
    y = np.arange(count) % 100
    if FLAGS.only:
        model = trainer(FLAGS.only, x, y)
        timing.seconds_per_step(model, x, y, FLAGS.batch_size)
        print(timing.own_peak())
        return
    names = [QAT, *CANDIDATES]
    if FLAGS.memory:
        rows = [(name, f"{peak_memory(name):.0f}") for name in names]
        print(format_table(("training", "peak MB"), rows))
        return
    models = {name: trainer(name, x, y) for name in names}
    found = {name: [] for name in names}
    for number in range(FLAGS.rounds + 1):
        for name in names if number % 2 else names[::-1]:
            times = timing.seconds_per_step(
                models[name], x, y, FLAGS.batch_size
            )
            if number:  # the first compiles
                found[name].append(times)
    rows = []
    for name in names:
        ratios = [
            statistics.median(
                a[clock] / b[clock] for a, b in zip(found[name], found[QAT])
            )
            for clock in (0, 1)
        ]
        wall = statistics.median(1e3 * each[0] for each in found[name])
        rows.append((name, f"{wall:.0f}", *(f"{r:.2f}" for r in ratios)))
    print(
        f"ResNet-20, {FLAGS.target}, batch {FLAGS.batch_size}, "
        f"{keras.backend.backend()}, {FLAGS.rounds} rounds of {FLAGS.steps} "
        "steps in turn"
    )
    print(format_table(("training", "ms/step", "x QAT", "(cpu)"), rows))


if __name__ == "__main__":
    flags.DEFINE_enum("target", "paper", ["paper", "litert"], "Target.")
    flags.DEFINE_integer("batch_size", 64, "Batch size.", lower_bound=1)
    flags.DEFINE_integer("steps", 4, "Steps per round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Counted rounds.", lower_bound=1)
    flags.DEFINE_bool("memory", False, "Peak memory instead of times.")
    flags.DEFINE_string("only", "", "Train one way and print its peak MB.")
    app.run(main)
