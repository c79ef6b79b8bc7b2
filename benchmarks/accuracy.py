"""Accuracy of QAT, of SAQ's cases and of its strategies, fine-tuned equally.

    python benchmarks/accuracy.py --network=resnet8 --checkpoint=float.h5 \\
        --bits=w2a2,w4a4 --methods=qat,full,momentum --seeds=3

Every run of a seed starts from the same float network with the same
calibration, and sees the same images in the same order at the same learning
rate: SGD with Nesterov momentum 0.9, L2 1e-4, a cosine from `--learning_rate`
to 0; for `digits` and `transfer` (see `few_data.py`) Adam. Accuracies are those
with batch-norm statistics measured again on training images, and, beside them,
those with the moving ones. Each finished run is a line of JSON in `--results`;
a run that is there already is not run again, so that an interrupted benchmark
goes on where it stopped. `--held_out=5000` trains on all but the last 5,000
training images and tests on these: there, and only there, rho is chosen.
`--summary` prints the table, with the differences from QAT, seed by seed.
"""

import json
import pathlib
import statistics
import time

import cifar
import few_data
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
    "layer": {"adaptive": "layer"},
    "late_layer": {"adaptive": "layer", "strategy": "late"},
    "mix": {"strategy": keras_saq.sharpness.strategies.Full(mix=0.5)},
}
# What knows no rho.
WITHOUT_RHO = ("qat", "mesa", "ema", "distill")
NETWORKS = (*cifar.NETWORKS, *few_data.FLOAT_EPOCHS)


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
                radii = FLAGS.rho.split(",")
                if method in WITHOUT_RHO:
                    radii = ["0"]
                for rho in map(float, radii):
                    yield {
                        **shared,
                        "bits": bits,
                        "method": method,
                        "rho": rho,
                        "seed": seed,
                    }


def wrapped(q, method, rho, float_model, from_logits):
    """The model that `fit` trains."""
    if method in ("qat", "ema"):
        return q
    if method == "distill":
        teacher = keras_saq.sharpness.Distillation(
            float_model, from_logits=from_logits
        )
        return keras_saq.SAQModel(q, strategy="none", distillation=teacher)
    if method == "mesa":
        mesa = keras_saq.sharpness.strategies.MESA(from_logits=from_logits)
        return keras_saq.SAQModel(q, strategy=mesa)
    if method in VARIANTS:
        return keras_saq.SAQModel(q, rho=rho, **VARIANTS[method])
    return keras_saq.SAQModel(q, rho=rho, strategy=method)


def splits(settings):
    """Arrays to train and to test on."""
    network = settings["network"]
    if network in few_data.FLOAT_EPOCHS:
        images, labels = few_data.load_data(network, "train")
        test = few_data.load_data(network, "test")
    else:
        _, dataset, normalization = cifar.NETWORKS[network]
        images, labels = cifar.load_data(dataset, "train", normalization)
        test = cifar.load_data(dataset, "test", normalization)
    held_out = settings["held_out"]
    if held_out:
        test = images[-held_out:], labels[-held_out:]
        images, labels = images[:-held_out], labels[:-held_out]
    count = settings["train_samples"]
    return (images[:count], labels[:count]), test


def one_run(settings, train, test):
    network, seed = settings["network"], settings["seed"]
    few = network in few_data.FLOAT_EPOCHS
    keras.utils.set_random_seed(seed)
    if few:
        float_model = few_data.float_model(
            network, FLAGS.checkpoint, train, seed
        )
    else:
        float_model = cifar.NETWORKS[network][0](FLAGS.checkpoint)
    keras.utils.set_random_seed(seed)
    q = keras_saq.quantize_model(
        float_model, settings["bits"], calibration=train[0][:512]
    )
    from_logits = not cifar.has_probabilities(float_model)
    method = settings["method"]
    model = wrapped(q, method, settings["rho"], float_model, from_logits)
    steps = len(train[0]) // FLAGS.batch_size * settings["epochs"]
    if few:
        few_data.compile_model(model, steps, settings["learning_rate"])
        data = few_data.batches(network, train, FLAGS.batch_size, seed)
    else:
        cifar.compile_as(float_model, model, settings["learning_rate"], steps)
        data = cifar.example.augmented(*train, FLAGS.batch_size, seed)
    if method == "ema":
        model.optimizer.use_ema = True
        model.optimizer.ema_momentum = 0.99

    def accuracy(network):
        return 100 * network.evaluate(*test, batch_size=500, verbose=0)[1]

    before = accuracy(model)
    start = time.process_time()
    history = model.fit(
        data,
        epochs=settings["epochs"],
        verbose=0,
        reestimate_batch_norm=False,
    ).history
    seconds = time.process_time() - start
    moving = accuracy(model)
    keras_saq.callbacks.reestimate_batch_norm(model, train[0][:2048])
    return {
        **settings,
        "before": round(before, 3),
        "loss": round(history["loss"][-1], 4),
        "factor": getattr(model, "ascent_factor", None),
        "moving": round(moving, 3),
        "accuracy": round(accuracy(model), 3),
        "cpu_seconds": round(seconds, 1),
    }


def recorded(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def is_run(row, settings):
    return all(row.get(name) == value for name, value in settings.items())


SETTINGS = (
    "network",
    "held_out",
    "train_samples",
    "epochs",
    "learning_rate",
    "bits",
    "method",
    "rho",
)


def table(rows):
    """Mean and spread over the seeds of equal settings.

    And the differences from QAT with the same seed: their mean and spread.
    """
    groups = {}
    for row in rows:
        key = tuple(row[name] for name in SETTINGS)
        groups.setdefault(key, {})[row["seed"]] = row
    lines = []
    for key, group in sorted(groups.items(), key=str):
        plain = groups.get((*key[:-2], "qat", 0.0), {})
        gains = [
            group[seed]["accuracy"] - plain[seed]["accuracy"]
            for seed in group
            if seed in plain and group is not plain
        ]
        found = list(group.values())
        lines.append(
            (
                *(str(part) for part in key),
                str(len(group)),
                _mean(found, "before"),
                _mean(found, "moving"),
                _mean(found, "accuracy"),
                _spread([row["accuracy"] for row in found]),
                f"{statistics.mean(gains):+.2f}" if gains else "",
                _spread(gains),
                f"{statistics.mean(r['cpu_seconds'] for r in found):.0f}",
            )
        )
    header = ("network", "held out", "images", "epochs", "rate", "bits")
    header += ("method", "rho", "seeds", "before %", "moving %", "top-1 %")
    header += ("+-", "- QAT", "+-", "cpu s")
    return format_table(header, lines)


def _mean(rows, name):
    return f"{statistics.mean(row[name] for row in rows):.2f}"


def _spread(values):
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""


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
    flags.DEFINE_enum("network", "resnet8", sorted(NETWORKS), "Network.")
    flags.DEFINE_string("checkpoint", None, "Its float weights: .h5 or .npz.")
    flags.DEFINE_string("bits", "w2a2,w4a4", "Presets.")
    flags.DEFINE_string(
        "methods",
        "qat,full,momentum",
        "Of: qat, ema (of weights, 0.99), distill, mesa, case1, case2, weights "
        "(nothing else is perturbed), layer and late_layer (the released "
        "metric), mix, and the strategies of case 3.",
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
