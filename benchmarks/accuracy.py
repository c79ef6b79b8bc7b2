"""Accuracy of QAT, of SAQ's cases and of its strategies, fine-tuned equally.

    python benchmarks/accuracy.py --network=resnet8 --checkpoint=float.h5 \\
        --bits=w2a2,w4a4 --methods=qat,full,momentum --seeds=3

Every run starts from the same float checkpoint with the same calibration, and
sees the same images in the same order at the same learning rate: SGD with
Nesterov momentum 0.9, L2 1e-4, a cosine from `--learning_rate` to 0. Each
finished run is a line of JSON in `--results`; a run that is there already is
not run again, so that an interrupted benchmark goes on where it stopped.
`--held_out=5000` trains on all but the last 5,000 training images and tests
on these: there, and only there, rho is chosen. `--summary` prints the table.
"""

import json
import pathlib
import statistics
import time

import cifar
import keras
from absl import app
from absl import flags

import keras_saq
from keras_saq.table import format_table

FLAGS = flags.FLAGS
# What of SAQ's is not its default, by the names of `--methods`.
VARIANTS = {
    "case1": {"case": 1},
    "case2": {"case": 2},
    "weights": {"perturb": ("weights",)},
}


def run_settings():
    """What tells one run from another, in the order they are run."""
    shared = {
        name: FLAGS[name].value
        for name in (
            "network",
            "epochs",
            "learning_rate",
            "train_samples",
            "held_out",
        )
    }
    for seed in range(1, FLAGS.seeds + 1):
        for bits in FLAGS.bits.split(","):
            for method in FLAGS.methods.split(","):
                for rho in FLAGS.rho.split(","):
                    # QAT knows no rho: it runs once.
                    rho = 0.0 if method == "qat" else float(rho)
                    yield {
                        **shared,
                        "bits": bits,
                        "method": method,
                        "rho": rho,
                        "seed": seed,
                    }


def wrapped(q, method, rho):
    """The model that `fit` trains."""
    if method == "qat":
        return q
    if method in VARIANTS:
        return keras_saq.SAQModel(q, rho=rho, **VARIANTS[method])
    return keras_saq.SAQModel(q, rho=rho, strategy=method)


def splits(settings):
    """Arrays to train and to test on."""
    _, dataset, normalization = cifar.NETWORKS[settings["network"]]
    images, labels = cifar.load_data(dataset, "train", normalization)
    held_out = settings["held_out"]
    if held_out:
        test = images[-held_out:], labels[-held_out:]
        images, labels = images[:-held_out], labels[:-held_out]
    else:
        test = cifar.load_data(dataset, "test", normalization)
    count = settings["train_samples"]
    return (images[:count], labels[:count]), test


def one_run(settings, train, test):
    keras.utils.set_random_seed(settings["seed"])
    float_model = cifar.NETWORKS[settings["network"]][0](FLAGS.checkpoint)
    q = keras_saq.quantize_model(
        float_model, settings["bits"], calibration=train[0][:512]
    )
    model = wrapped(q, settings["method"], settings["rho"])
    steps = len(train[0]) // FLAGS.batch_size * settings["epochs"]
    cifar.compile_as(float_model, model, settings["learning_rate"], steps)
    before = model.evaluate(*test, batch_size=500, verbose=0)[1]
    start = time.process_time()
    model.fit(
        cifar.example.augmented(*train, FLAGS.batch_size, settings["seed"]),
        epochs=settings["epochs"],
        verbose=0,
    )
    seconds = time.process_time() - start
    after = model.evaluate(*test, batch_size=500, verbose=0)[1]
    return {
        **settings,
        "before": round(100 * before, 3),
        "accuracy": round(100 * after, 3),
        "cpu_seconds": round(seconds, 1),
    }


def recorded(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_run(row, settings):
    return all(row.get(name) == value for name, value in settings.items())


def table(rows):
    """Mean and spread over the seeds of equal settings."""
    groups = {}
    for row in rows:
        groups.setdefault(
            tuple(
                row[name]
                for name in (
                    "network",
                    "held_out",
                    "train_samples",
                    "epochs",
                    "learning_rate",
                    "bits",
                    "method",
                    "rho",
                )
            ),
            [],
        ).append(row)
    lines = []
    for key, group in sorted(groups.items()):
        found = [row["accuracy"] for row in group]
        spread = statistics.stdev(found) if len(found) > 1 else None
        lines.append(
            (
                *(str(part) for part in key),
                str(len(group)),
                f"{statistics.mean(row['before'] for row in group):.2f}",
                f"{statistics.mean(found):.2f}",
                "" if spread is None else f"{spread:.2f}",
                f"{statistics.mean(row['cpu_seconds'] for row in group):.0f}",
            )
        )
    header = ("network", "held out", "images", "epochs", "rate", "bits")
    header += ("method", "rho", "seeds", "before %", "top-1 %", "+-", "cpu s")
    return format_table(header, lines)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    path = pathlib.Path(FLAGS.results)
    if not FLAGS.summary:
        data = None
        for settings in run_settings():
            if any(is_run(row, settings) for row in recorded(path)):
                continue
            data = data or splits(settings)
            result = one_run(settings, *data)
            keras.backend.clear_session()
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    print(table(recorded(path)))


if __name__ == "__main__":
    flags.DEFINE_enum("network", "resnet8", sorted(cifar.NETWORKS), "Network.")
    flags.DEFINE_string("checkpoint", None, "Its float weights: .h5 or .npz.")
    flags.DEFINE_string("bits", "w2a2,w4a4", "Presets.")
    flags.DEFINE_string(
        "methods",
        "qat,full,momentum",
        "Of: qat, case1, case2, weights (nothing else is perturbed), and the "
        "strategies of case 3.",
    )
    flags.DEFINE_string("rho", "0.1", "Radii.")
    flags.DEFINE_integer("seeds", 3, "Seeds 1, 2, ...", lower_bound=1)
    flags.DEFINE_integer("epochs", 3, "Epochs of every run.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.01, "Initial learning rate.")
    flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
    flags.DEFINE_integer(
        "train_samples", None, "Train on the first so many.", lower_bound=1
    )
    flags.DEFINE_integer(
        "held_out",
        0,
        "Test on so many last training images instead of on the test set.",
        lower_bound=0,
    )
    flags.DEFINE_string("results", "accuracy.jsonl", "A line per run.")
    flags.DEFINE_bool("summary", False, "Only print what was measured.")
    app.run(main)
