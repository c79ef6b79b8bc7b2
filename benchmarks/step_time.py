"""Step times of float, QAT and SAQ training, as ratios from one run.

    python benchmarks/step_time.py --network=resnet20 --rounds=5
    python benchmarks/step_time.py --network=vit --strategies=full,looksam

Pre-activation ResNet-20 at batch 128, or a small vision transformer, on
random images. All of them take turns, round by round, so that a machine whose
speed drifts slows all of them; the medians' ratios are what to read. Where
other programs run beside it, the ratios of processor time, summed over the
cores, are steadier than those of wall time.
"""

import statistics

import cifar
import keras
import numpy as np
import timing
from absl import app
from absl import flags

import keras_saq
from keras_saq.sharpness import strategies
from keras_saq.table import format_table

FLAGS = flags.FLAGS
CLASSES = 100


def vit(depth=6, width=128, heads=4):
    """A small vision transformer on 32x32 images: 8x8 patches of 4x4."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(width, 4, strides=4)(inputs)
    x = layers.Reshape((64, width))(x)
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(heads, width // heads)(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


NETWORKS = {
    "resnet20": lambda: cifar.example.preact_resnet20(CLASSES),
    "vit": vit,
}


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA on CPU is slower for all of them on TensorFlow.
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def data():
    rng = np.random.default_rng(0)
    count = FLAGS.steps * FLAGS.batch_size
    x = rng.normal(size=(count, 32, 32, 3)).astype("float32")
    return x, rng.integers(0, CLASSES, count)


def training(name, x):
    """A compiled model by its name: float, QAT, or a strategy."""
    model = NETWORKS[FLAGS.network]()
    if name == "float":
        return compiled(model)
    policy = keras_saq.QuantizePolicy.preset(FLAGS.bits, scheme=FLAGS.scheme)
    q = keras_saq.quantize_model(model, policy, calibration=x[:128])
    if name == "QAT":
        return compiled(q)
    return compiled(keras_saq.SAQModel(q, rho=0.1, strategy=name))


def names():
    chosen = [n for n in FLAGS.strategies.split(",") if n]
    for name in chosen:
        strategies.get(name)
    return ["float", "QAT", *chosen]


def times(x, y):
    """Dict from name to seconds per step, one pair per round."""
    models = {name: training(name, x) for name in names()}
    for model in models.values():
        timing.seconds_per_step(model, x, y, FLAGS.batch_size)  # compiles
    found = {name: [] for name in models}
    for number in range(FLAGS.rounds):
        # Not always in the same order.
        order = list(models) if number % 2 else list(models)[::-1]
        for name in order:
            found[name].append(
                timing.seconds_per_step(models[name], x, y, FLAGS.batch_size)
            )
    return found


def peak_memory(name):
    """Peak resident memory of a process that trains one way, in MB."""
    same = [f"--{f}={FLAGS[f].value}" for f in ("network", "bits", "scheme")]
    same += [f"--batch_size={FLAGS.batch_size}", "--steps=3"]
    return timing.peak_memory(__file__, f"--only={name}", *same)


def ratio(found, name, other, clock):
    """Median over rounds: the times of one round are close together."""
    pairs = zip(found[name], found[other])
    return f"{statistics.median(a[clock] / b[clock] for a, b in pairs):.2f}"


def report(found):
    rows = []
    for name, measured in found.items():
        wall = [1e3 * each[0] for each in measured]
        is_strategy = name in strategies.STRATEGIES
        row = [
            name,
            f"{statistics.median(wall):.0f}",
            f"{min(wall):.0f} to {max(wall):.0f}",
            *(ratio(found, name, "float", clock) for clock in (0, 1)),
            *(ratio(found, name, "QAT", clock) for clock in (0, 1)),
            f"{strategies.get(name).cost:.2f}" if is_strategy else "",
        ]
        if FLAGS.memory:
            row.append(f"{peak_memory(name):.0f}")
        rows.append(tuple(row))
    header = ["training", "ms/step", "min to max", "x float", "(cpu)"]
    header += ["x QAT", "(cpu)", "passes"]
    header += ["peak MB"] if FLAGS.memory else []
    print(
        f"{FLAGS.network}, batch {FLAGS.batch_size}, {FLAGS.bits} "
        f"{FLAGS.scheme}, {keras.backend.backend()}, {FLAGS.rounds} rounds "
        f"of {FLAGS.steps} steps in turn; ratios: medians over rounds"
    )
    print(format_table(tuple(header), rows))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    x, y = data()
    if FLAGS.only:
        model = training(FLAGS.only, x)
        timing.seconds_per_step(model, x, y, FLAGS.batch_size)
        print(timing.own_peak())
        return
    report(times(x, y))


if __name__ == "__main__":
    flags.DEFINE_enum("network", "resnet20", sorted(NETWORKS), "Network.")
    flags.DEFINE_string("bits", "w4a4", "Preset.")
    flags.DEFINE_enum("scheme", "litert", ["litert", "paper"], "Scheme.")
    flags.DEFINE_string(
        "strategies", ",".join(strategies.STRATEGIES), "Of SAQ."
    )
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    flags.DEFINE_integer("steps", 10, "Steps per round.", lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Counted rounds.", lower_bound=1)
    flags.DEFINE_bool("memory", False, "Also measure peak memory.")
    flags.DEFINE_string("only", "", "Train one way and print its peak MB.")
    app.run(main)
