"""Every architecture of `keras.applications`, and KerasHub's backbones.

Each network gets random weights and batch norm statistics of its own from
random images, goes from `quantize_model` to a verified `.tflite` in a process
of its own, and is one line of a file of results, at once; a run that is given
again goes on with those that are missing.

    python benchmarks/architectures.py --results architectures.jsonl
    python benchmarks/architectures.py --results architectures.jsonl \\
        --only MobileNetV2,VGG16 --size 96
    python benchmarks/architectures.py --results architectures.jsonl --table
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

SAMPLES = 8
APPLICATIONS = """
ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge
DenseNet121 DenseNet169 DenseNet201
EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4
EfficientNetB5 EfficientNetB6 EfficientNetB7
EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3
EfficientNetV2L EfficientNetV2M EfficientNetV2S
InceptionResNetV2 InceptionV3
MobileNet MobileNetV2 MobileNetV3Large MobileNetV3Small
NASNetLarge NASNetMobile
ResNet101 ResNet101V2 ResNet152 ResNet152V2 ResNet50 ResNet50V2
VGG16 VGG19 Xception
""".split()


def application(name, size):
    import keras
    import numpy as np

    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    rng = np.random.default_rng(0)
    # Neighbouring pixels are alike, as in photographs.
    coarse = rng.uniform(0, 255, (4 * SAMPLES, size // 8, size // 8, 3))
    x = coarse.repeat(8, 1).repeat(8, 2).astype("float32")
    if size % 8:
        x = np.pad(x, ((0, 0), (0, size % 8), (0, size % 8), (0, 0)), "edge")
    return model, x


def settle(model, x):
    """Batch norm statistics are those of the data."""
    import keras

    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    if norms:
        model(x, training=True)
    for norm, momentum in zip(norms, kept):
        norm.momentum = momentum


def measure(name, size, policy, with_converter):
    """One row, in this process."""
    import warnings

    import keras

    import keras_saq
    from keras_saq.models.compare import decibels

    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(0)
    model, x = application(name, size)
    settle(model, x)
    row = {"name": name, "size": size, "policy": policy}
    row["parameters"] = model.count_params()
    start, cpu = time.time(), time.process_time()
    q = keras_saq.quantize_model(model, policy, calibration=x)
    row["quantize_s"] = time.process_time() - cpu
    folder = pathlib.Path(tempfile.mkdtemp())
    path = folder / "ours.tflite"
    cpu = time.process_time()
    report = keras_saq.export_litert(q, path)
    row["export_s"] = time.process_time() - cpu
    row["bytes"] = report.file_bytes
    row["islands"] = [list(island) for island in report.islands]
    row["undelegated"] = sorted(set(report.undelegated))
    cpu = time.process_time()
    parity = keras_saq.verify_litert(path, q, x[:2])
    row["verify_s"] = time.process_time() - cpu
    row["exact"] = bool(parity.reference_exact)
    row["within_bounds"] = bool(parity.within_bounds)
    row["db"] = decibels(
        model.predict(x, batch_size=SAMPLES, verbose=0),
        q.predict(x, batch_size=SAMPLES, verbose=0),
    )
    row["seconds"] = time.time() - start
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    paths = [path]
    if with_converter:
        other = folder / "converter.tflite"
        try:
            other.write_bytes(converted(model, x))
            row["converter_bytes"] = other.stat().st_size
            row["converter_db"] = decibels(
                model.predict(x[:4], verbose=0), run(other, x[:4])
            )
            paths.append(other)
        except Exception as error:
            row["converter_error"] = f"{type(error).__name__}: {error}"[:200]
    timing = keras_saq.benchmark_litert(paths, rounds=5, warmup=1)
    row["ms"] = timing.files[0].median_ms
    if len(paths) > 1:
        row["converter_ms"] = timing.files[1].median_ms
    return row


def converted(model, x):
    """The official converter's full-integer file."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([s[None]] for s in x)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    return converter.convert()


def run(path, x):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (given, *_), (made, *_) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    outputs = []
    for sample in x:
        interpreter.set_tensor(given["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"])[0])
    return np.stack(outputs)


def table(rows):
    lines = [
        "| network | parameters | file = reference | float islands | dB to "
        "float (converter) | bytes (converter) | ms (converter) | quantize, "
        "export, verify s | peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: row["name"].lower()):
        if "error" in row:
            lines.append(f"| {row['name']} | | {row['error']} | | | | | | |")
            continue
        exact = "every output" if row["exact"] else "within bounds"
        if not row["within_bounds"]:
            exact = "NO"
        kinds = sorted({reason.split(" ")[0] for _, reason in row["islands"]})
        islands = f"{len(row['islands'])}: {', '.join(kinds)}" if kinds else "0"
        beside = {
            key: f" ({row[f'converter_{key}']:,.{digits}f})"
            if f"converter_{key}" in row
            else ""
            for key, digits in (("db", 1), ("bytes", 0), ("ms", 1))
        }
        lines.append(
            f"| {row['name']} | {row['parameters'] / 1e6:.1f} M | {exact} | "
            f"{islands} | {row['db']:.1f}{beside['db']} | "
            f"{row['bytes']:,}{beside['bytes']} | "
            f"{row['ms']:.1f}{beside['ms']} | {row['quantize_s']:.0f}, "
            f"{row['export_s']:.0f}, {row['verify_s']:.0f} | "
            f"{row['peak_mb']:,.0f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--only", default=",".join(APPLICATIONS))
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--policy", default="w8a8")
    parser.add_argument("--no-converter", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        row = measure(
            arguments.one,
            arguments.size,
            arguments.policy,
            not arguments.no_converter,
        )
        print("ROW " + json.dumps(row))
        return
    rows = []
    if arguments.results.exists():
        lines = arguments.results.read_text().splitlines()
        rows = [json.loads(line) for line in lines]
    if arguments.table:
        print(table(rows))
        return
    done = {row["name"] for row in rows}
    for name in arguments.only.split(","):
        if name in done:
            continue
        command = [sys.executable, __file__, "--one", name, *sys.argv[1:]]
        finished = subprocess.run(command, capture_output=True, text=True)
        found = [
            line[4:]
            for line in finished.stdout.splitlines()
            if line.startswith("ROW ")
        ]
        last = (finished.stderr.strip().splitlines() or ["?"])[-1][:200]
        row = json.loads(found[0]) if found else {"name": name, "error": last}
        with arguments.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, row.get("error") or f"{row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
