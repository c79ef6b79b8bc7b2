"""Bytes and latency of exported networks beside float and int8 files.

    python benchmarks/export_size.py --network=mobilenet_v2 --size=96
    python benchmarks/export_size.py --network=resnet18 --size=224

Random weights and inputs: bytes and times do not depend on them. The float
file and the int8 file (post-training quantization with calibration data) are
TensorFlow's converter's. All files take turns; ratios of latency are medians
over rounds. Prints a Markdown table and whether each file equals its
code-domain reference.
"""

import contextlib
import os
import pathlib
import tempfile
import warnings

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_enum("network", "mobilenet_v2", list(NETWORKS), "Network.")
    flags.DEFINE_integer("size", 96, "Height and width of the images.")
    flags.DEFINE_integer("classes", 1000, "Outputs; their layer has 8 bits.")
    flags.DEFINE_list("bits", ["w4a8"], "Presets.")
    flags.DEFINE_list("storages", ["exact", "small"], "Ways to store codes.")
    flags.DEFINE_integer("rounds", 100, "Rounds of the latency measurement.")
    flags.DEFINE_integer("threads", 1, "Threads of the kernels.")
    flags.DEFINE_integer("repeats", 1, "Latency measurements, one by one.")


def mobilenet_v2(size):
    return keras.applications.MobileNetV2(
        (size, size, 3), weights=None, classes=FLAGS.classes
    )


def resnet18(size):
    """ResNet-18 (He et al. 2016): most weights are in 3x3 kernels."""
    layers = keras.layers

    def conv(x, filters, kernel, strides, relu=True):
        x = layers.Conv2D(
            filters, kernel, strides=strides, padding="same", use_bias=False
        )(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if relu else x

    inputs = keras.Input((size, size, 3))
    x = conv(inputs, 64, 7, 2)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage, filters in enumerate((64, 128, 256, 512)):
        for block in range(2):
            strides = 2 if stage and not block else 1
            y = conv(x, filters, 3, strides)
            y = conv(y, filters, 3, 1, relu=False)
            if strides > 1:
                x = conv(x, filters, 1, strides, relu=False)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(FLAGS.classes)(x))


NETWORKS = {"mobilenet_v2": mobilenet_v2, "resnet18": resnet18}


@contextlib.contextmanager
def silence():
    """Hides what the converter prints about its inner workings."""
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        with contextlib.redirect_stdout(nowhere):
            yield
        os.dup2(saved, 2)
        os.close(saved)


def converted(model, path, images=None):
    """TensorFlow's float file, or its int8 file where images are given."""
    import tensorflow as tf

    with silence():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if images is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [image[None]] for image in images
            )
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            ]
        path.write_bytes(converter.convert())


def main(argv):
    del argv
    keras.utils.set_random_seed(0)
    folder = pathlib.Path(tempfile.mkdtemp())
    shape = (16, FLAGS.size, FLAGS.size, 3)
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    model = NETWORKS[FLAGS.network](FLAGS.size)
    paths = {"float": folder / "float.tflite", "int8": folder / "int8.tflite"}
    converted(model, paths["float"])
    converted(model, paths["int8"], images)
    exact = {}
    for bits in FLAGS.bits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantized = keras_saq.quantize_model(
                model, bits, calibration=images
            )
        for storage in FLAGS.storages:
            name = f"{bits} {storage}"
            paths[name] = folder / f"{bits}-{storage}.tflite"
            keras_saq.export_litert(quantized, paths[name], storage=storage)
            exact[name] = keras_saq.verify_litert(
                paths[name], quantized, images[:4]
            ).reference_exact
    name = f"{FLAGS.network}, {FLAGS.size} x {FLAGS.size}"
    print(f"{name}, {FLAGS.classes} classes\n")
    for _ in range(FLAGS.repeats):
        # The int8 file is first: ratios are to it.
        order = ["int8", *(name for name in paths if name != "int8")]
        report = keras_saq.benchmark_litert(
            [paths[name] for name in order],
            num_threads=FLAGS.threads,
            rounds=FLAGS.rounds,
        )
        print_table(dict(zip(order, report.files)), paths, exact)
        print(f"\n{str(report).splitlines()[-1]}\n", flush=True)


def print_table(rows, paths, exact):
    print(
        "| file | bytes | / float | / int8 | median ms | latency / int8 "
        "(10 % to 90 %) | processor time / int8 | peak MiB | not delegated | "
        "= reference |"
    )
    print("| --- " * 10 + "|")
    for name, path in paths.items():
        row = rows[name]
        missing = keras_saq.inspect_litert(path).undelegated
        cells = (
            name,
            f"{row.file_bytes:,}",
            f"{row.file_bytes / rows['float'].file_bytes:.3f}",
            f"{row.file_bytes / rows['int8'].file_bytes:.3f}",
            f"{row.median_ms:.3f}",
            f"{row.ratio:.3f} ({row.ratio_low:.3f} to {row.ratio_high:.3f})",
            f"{row.cpu_ratio:.3f}",
            f"{row.peak_bytes / 2**20:.1f}",
            ", ".join(missing) or "nothing",
            {True: "yes", False: "NO", None: ""}[exact.get(name)],
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
