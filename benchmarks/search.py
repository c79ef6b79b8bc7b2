"""Do policies transfer? ResNet-8 on CIFAR-10, every method at equal BOPs.

    python benchmarks/search.py --checkpoint=pretrainedResnet.h5 \\
        --results=search.jsonl
    python benchmarks/search.py --results=search.jsonl --report

The network is the one of MLPerf Tiny (mlcommons/tiny), from its float
checkpoint. Each run searches with one method and one seed, within the bit
operations of w3a3, and fine-tunes the policy on a part of CIFAR-10's training
images, the same for every method; accuracy is of all test images. A run adds
one line to `--results`, and runs that are in it are skipped, so it can be
stopped and started again.

| run           | method      | searched on                              |
|---------------|-------------|------------------------------------------|
| seam-4%       | seam        | 4 % of CIFAR-10                          |
| seam-cifar100 | seam        | 4 % of CIFAR-100: other classes          |
| ce-4%         | ce          | 4 % of CIFAR-10                          |
| seam-full     | seam        | all of CIFAR-10                          |
| sensitivity   | sensitivity | 512 images of the 4 %                    |
| scale         | scale       | 4 % of CIFAR-10                          |
| random        | random      | nothing                                  |
| uniform       | uniform     | nothing                                  |
"""

import functools
import itertools
import json
import pathlib
import time

import cifar
import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import proxy_split
from keras_saq.data import shift_and_flip
from keras_saq.table import format_table

FLAGS = flags.FLAGS
# Name, method, data set, part of it, whether it runs for `--full_epochs`.
RUNS = {
    "uniform": ("uniform", "cifar10", 0.04),
    "random": ("random", "cifar10", 0.04),
    "seam-4%": ("seam", "cifar10", 0.04),
    "ce-4%": ("ce", "cifar10", 0.04),
    "sensitivity": ("sensitivity", "cifar10", 0.04),
    "scale": ("scale", "cifar10", 0.04),
    "seam-cifar100": ("seam", "cifar100", 0.04),
    "seam-full": ("seam", "cifar10", 1.0),
}
# Batch norm statistics that follow a short training.
MOMENTUM = 0.9


def float_model():
    model = cifar.resnet8(FLAGS.checkpoint)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


@functools.cache
def images(data, split="train"):
    """All images and labels of a split, as bytes, read once."""
    return proxy_split(data, 1.0, split=split, preprocess=lambda x: x)


def part(data, fraction, seed):
    whole = images(data)
    return proxy_split((whole.x, whole.y), fraction, seed, name=data)


def searched(name, seed):
    """A `PolicySearch` that is done, with its wall and processor time."""
    method, data, fraction = RUNS[name]
    proxy = part(data, fraction, seed)
    epochs = FLAGS.epochs if fraction < 1 else FLAGS.full_epochs
    search = keras_saq.PolicySearch(
        float_model(),
        proxy,
        method,
        target="paper",
        epochs=epochs,
        augment=shift_and_flip,
        seed=seed,
        verbose=0,
    )
    start = time.perf_counter(), time.process_time()
    search.fit(keras_saq.Budget(bops=FLAGS.budget))
    stop = time.perf_counter(), time.process_time()
    return search, [round(b - a, 2) for a, b in zip(start, stop)]


def fine_tuned(policy, train, test, seed):
    """Test accuracy of a policy, before and after training."""
    keras.utils.set_random_seed(seed)
    q = keras_saq.quantize_model(
        float_model(), policy, calibration=train.x[:256]
    )
    steps = len(train) // FLAGS.batch_size * FLAGS.fine_tune_epochs
    rate = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)
    q.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    before = q.evaluate(test.x, test.y, batch_size=250, verbose=0)[1]
    q.fit(
        train.x,
        train.y,
        batch_size=FLAGS.batch_size,
        epochs=FLAGS.fine_tune_epochs,
        verbose=0,
    )
    loss, after = q.evaluate(test.x, test.y, batch_size=250, verbose=0)
    return before, after, loss, keras_saq.summary(q, print_fn=False).bops


def run(name, seed, test):
    search, seconds = searched(name, seed)
    policy = search.policy()
    found = policy.provenance
    # Not the images that proxies are taken from first: another seed.
    train = part("cifar10", FLAGS.fine_tune_fraction, 1000 + seed)
    before, after, loss, bops = fine_tuned(policy, train, test, seed)
    if bops != found["cost"]["bops"] or bops > found["limits"]["bops"]:
        raise ValueError(f"{name}: {bops} BOPs, not {found}")
    return {
        "run": name,
        "seed": seed,
        "bops": bops,
        "limit": found["limits"]["bops"],
        "search_seconds": seconds[0],
        "search_cpu_seconds": seconds[1],
        "epochs": found["epochs"],
        "samples": found["proxy"]["samples"],
        "before": round(before, 4),
        "accuracy": round(after, 4),
        "loss": round(loss, 4),
        "bits": found["bits"],
        "history": search.history,
        "settings": settings(),
    }


def settings():
    names = ("budget", "epochs", "full_epochs", "fine_tune_fraction")
    names += ("fine_tune_epochs", "learning_rate", "batch_size")
    return {name: FLAGS[name].value for name in names}


def read():
    path = pathlib.Path(FLAGS.results)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def correlation(first, second):
    """Pearson's, of the bits of all groups; None where one is constant."""
    a, b = (np.array(list(r["bits"].values()), float) for r in (first, second))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def report(records):
    by_run = {
        name: {r["seed"]: r for r in records if r["run"] == name}
        for name in RUNS
    }
    full = by_run["seam-full"]
    rows = []
    for name, runs in by_run.items():
        if not runs:
            continue
        accuracy = [100 * r["accuracy"] for r in runs.values()]
        before = [100 * r["before"] for r in runs.values()]
        cpu = [r["search_cpu_seconds"] for r in runs.values()]
        ratios = [
            full[s]["search_cpu_seconds"] / max(r["search_cpu_seconds"], 1e-2)
            for s, r in runs.items()
            if s in full
        ]
        to_full = [
            correlation(r, full[s]) for s, r in runs.items() if s in full
        ]
        among = [
            correlation(a, b)
            for a, b in itertools.combinations(runs.values(), 2)
        ]
        use = [r["bops"] / r["limit"] for r in runs.values()]
        rows.append(
            (
                name,
                str(len(runs)),
                f"{np.mean(use):.3f}",
                f"{np.mean(before):.1f}",
                f"{np.mean(accuracy):.2f}",
                f"{np.std(accuracy, ddof=1):.2f}" if len(runs) > 1 else "",
                f"{np.mean(cpu):.1f}",
                f"{np.mean(ratios):.1f}" if ratios else "",
                _mean(to_full),
                _mean(among),
            )
        )
    header = ("run", "seeds", "of budget", "before %", "accuracy %", "sd")
    header += ("search cpu s", "x faster than full", "corr. with full")
    header += ("corr. of seeds",)
    print(format_table(header, rows, num_left=1))


def _mean(values):
    values = [v for v in values if v is not None]
    return f"{np.mean(values):.2f}" if values else ""


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if FLAGS.report:
        report(read())
        return
    test = images("cifar10", "test")
    for seed in range(FLAGS.seeds):
        for name in FLAGS.runs or RUNS:
            if any(r["run"] == name and r["seed"] == seed for r in read()):
                continue
            record = run(name, seed, test)
            with pathlib.Path(FLAGS.results).open("a") as file:
                file.write(json.dumps(record) + "\n")
            shown = ("run", "seed", "before", "accuracy", "search_seconds")
            print({key: record[key] for key in shown}, flush=True)
    report(read())


def define_flags():
    flags.DEFINE_string("checkpoint", None, "MLPerf Tiny's ResNet-8, .h5.")
    flags.DEFINE_string("results", "search.jsonl", "One line per run.")
    flags.DEFINE_bool("report", False, "Only print the table of `--results`.")
    flags.DEFINE_list("runs", None, f"Some of {', '.join(RUNS)}.")
    flags.DEFINE_string("budget", "w3a3", "Bit operations, see Budget.")
    flags.DEFINE_integer("seeds", 3, "Number of seeds.", lower_bound=1)
    flags.DEFINE_integer("epochs", 15, "Epochs on a proxy.")
    flags.DEFINE_integer("full_epochs", 1, "Epochs on all of CIFAR-10.")
    flags.DEFINE_float("fine_tune_fraction", 0.2, "Part of the images.")
    flags.DEFINE_integer("fine_tune_epochs", 1, "Epochs of fine-tuning.")
    flags.DEFINE_float("learning_rate", 0.01, "Of fine-tuning.")
    flags.DEFINE_integer("batch_size", 128, "Of fine-tuning.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
