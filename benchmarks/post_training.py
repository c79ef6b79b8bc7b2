"""Accuracy after quantization without training, on test images.

    python benchmarks/post_training.py --checkpoints=FOLDER \\
        --networks=resnet8,resnet20 --bits=w8a8,w4a8,w4a4 --seeds=3

Of each network, at each width: calibrated as it was before there was a
correction; corrected (what `quantize_model` does); reconstructed
(`keras_saq.reconstruct`); and both with inputs from `keras_saq.data_free`
instead of images. A seed draws the 512 training images that serve as samples,
without their labels. Each result is a line of JSON in `--results`; a
run that is there already is not run again. `--summary` prints the table.
"""

import functools
import json
import pathlib
import statistics
import time
import warnings

import cifar
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.table import format_table

FLAGS = flags.FLAGS
# Name -> (network of `cifar.NETWORKS`, file of its float weights).
FILES = {
    "resnet8": ("resnet8", "mlcommons_tiny/pretrainedResnet.h5"),
    "resnet20": ("resnet20", "pytorch_resnet_cifar10/resnet20-12fca82f.npz"),
    "preact_saq": ("preact_resnet20", "preresnet20_cifar100_saq.npz"),
    "preact": ("preact_resnet20", "preresnet20_cifar100.npz"),
}
METHODS = ("float", "calibrated", "corrected", "reconstructed")
METHODS += ("data_free", "data_free_reconstructed")
NUM_SAMPLES = 512


def run_settings():
    """What tells one run from another, in the order they are run."""
    methods = FLAGS.methods.split(",")
    for seed in range(1, FLAGS.seeds + 1):
        for network in FLAGS.networks.split(","):
            for bits in FLAGS.bits.split(","):
                for method in methods:
                    if method == "float":
                        if (seed, bits) == (1, FLAGS.bits.split(",")[0]):
                            yield _settings(network, "float", method, 1)
                    else:
                        yield _settings(network, bits, method, seed)


def _settings(network, bits, method, seed):
    return {
        "network": network,
        "bits": bits,
        "method": method,
        "seed": seed,
        "test_images": FLAGS.test_images,
    }


def loaded(network):
    """The float network, samples to draw from, and test images."""
    name, file = FILES[network]
    make, dataset, normalization = cifar.NETWORKS[name]
    model = make(str(pathlib.Path(FLAGS.checkpoints) / file))
    images, _ = cifar.load_data(dataset, "train", normalization)
    return model, images, cifar.load_data(dataset, "test", normalization)


def top1(model, test):
    images, labels = test
    made = model.predict(images[: FLAGS.test_images], batch_size=500, verbose=0)
    found = made.argmax(-1) == labels.ravel()[: FLAGS.test_images]
    return round(100 * float(found.mean()), 2)


@functools.cache
def distilled(model, seed):
    return keras_saq.data_free(model, seed=seed, verbose=0)


def samples(settings, model, images):
    """What a run may look at."""
    if settings["method"].startswith("data_free"):
        return distilled(model, settings["seed"])
    random = np.random.default_rng(settings["seed"])
    return images[random.choice(len(images), NUM_SAMPLES, replace=False)]


def one_run(settings, model, images, test):
    quantized, method = model, settings["method"]
    x = None
    if method != "float":
        x = samples(settings, model, images)
    start, cpu = time.time(), time.process_time()
    if method != "float":
        with warnings.catch_warnings():
            # That low bits need a mend is what is measured here.
            warnings.simplefilter("ignore")
            quantized = keras_saq.quantize_model(
                model,
                settings["bits"],
                calibration=x,
                correct=method != "calibrated",
            )
        if method.endswith("reconstructed"):
            keras_saq.reconstruct(
                quantized, model, x, seed=settings["seed"], verbose=0
            )
    seconds, cpu = time.time() - start, time.process_time() - cpu
    return {
        **settings,
        "accuracy": top1(quantized, test),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }


def recorded(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows):
    """A line per network and width, a column per method; mean and spread."""
    found = {}
    for row in rows:
        key = row["network"], row["bits"]
        found.setdefault(key, {}).setdefault(row["method"], []).append(
            row["accuracy"]
        )
    lines = []
    for (network, bits), methods in found.items():
        if bits == "float":
            continue
        floats = found.get((network, "float"), {}).get("float", [])
        cells = [_cell(floats), *(_cell(methods.get(m)) for m in METHODS[1:])]
        seeds = max(len(values) for values in methods.values())
        lines.append((network, bits, str(seeds), *cells))
    return format_table(("network", "bits", "seeds", *METHODS), lines)


def _cell(values):
    if not values:
        return ""
    mean = f"{statistics.mean(values):.2f}"
    if len(values) < 2:
        return mean
    return f"{mean} +- {statistics.stdev(values):.2f}"


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    path = pathlib.Path(FLAGS.results)
    if not FLAGS.summary:
        data = {}
        for settings in run_settings():
            if any(
                all(row.get(k) == v for k, v in settings.items())
                for row in recorded(path)
            ):
                continue
            network = settings["network"]
            if network not in data:
                data = {network: loaded(network)}
            result = one_run(settings, *data[network])
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps(result), flush=True)
    print(table(recorded(path)))


if __name__ == "__main__":
    flags.DEFINE_string("checkpoints", None, "Folder of float networks.")
    flags.DEFINE_string("networks", ",".join(FILES), "Of them.")
    flags.DEFINE_string("bits", "w8a8,w4a8,w4a4,w3a8,w2a8", "Presets.")
    flags.DEFINE_string("methods", ",".join(METHODS), "What to compare.")
    flags.DEFINE_integer("seeds", 3, "Seeds 1, 2, ...", lower_bound=1)
    flags.DEFINE_integer(
        "test_images", 10000, "The first so many.", lower_bound=1
    )
    flags.DEFINE_string("results", "post_training.jsonl", "A line per run.")
    flags.DEFINE_bool("summary", False, "Only print what was measured.")
    app.run(main)
