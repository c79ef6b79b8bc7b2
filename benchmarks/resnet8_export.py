"""MLPerf Tiny's ResNet-8: quantize, fine-tune with SAQ, export, compare.

    python benchmarks/resnet8_export.py --checkpoint=pretrainedResnet.h5 \\
        --reference=pretrainedResnet_quant.tflite --output=resnet8

The float network and the int8 file that it is measured against are those of
the mlcommons/tiny repository (inputs are pixels, 0 to 255). CIFAR-10 comes from
TensorFlow Datasets. Prints a Markdown table: top-1 of each file on the 10,000
test images, its bytes and its latency beside the reference file's, and how it
compares with `model.predict`. An epoch takes about ten minutes on two CPU
cores; `--trained` takes a model that an earlier run saved.
"""

import json
import pathlib

import cifar
import keras
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import keras_saq

FLAGS = flags.FLAGS
BATCH_SIZE = 128


def define_flags():
    flags.DEFINE_string("checkpoint", None, "Float model, .h5 or .keras.")
    flags.DEFINE_string("trained", None, "Quantized .keras of an earlier run.")
    flags.DEFINE_string("reference", None, "The int8 file to compare with.")
    flags.DEFINE_string("output", "resnet8", "Folder for what is written.")
    flags.DEFINE_string("bits", "w4a8", "Preset.")
    flags.DEFINE_list("storages", ["exact", "small"], "Ways to store codes.")
    flags.DEFINE_float("rho", 0.05, "Radius of SAQ's perturbation; 0 is QAT.")
    flags.DEFINE_integer("epochs", 2, "Epochs of fine-tuning.", lower_bound=0)
    flags.DEFINE_float("learning_rate", 3e-4, "Adam's, cosine to zero.")
    flags.DEFINE_integer("seed", 1, "Seed of the data's order and crops.")
    flags.mark_flag_as_required("reference")


def augmented(x, y):
    """Shuffled batches, each image shifted by up to 4 pixels or mirrored."""

    def change(image, label):
        image = tf.pad(image, [(4, 4), (4, 4), (0, 0)], "REFLECT")
        image = tf.image.random_crop(image, (32, 32, 3))
        return tf.image.random_flip_left_right(image), label

    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.shuffle(len(x), seed=FLAGS.seed).map(change)
    return data.batch(BATCH_SIZE, drop_remainder=True).prefetch(2)


def accuracy(outputs, labels):
    return float((outputs.argmax(axis=-1) == labels).mean())


def fine_tuned(x, y):
    """The quantized model after a few epochs, or as it was saved."""
    if FLAGS.trained:
        return keras.saving.load_model(FLAGS.trained)
    model = cifar.resnet8(FLAGS.checkpoint)
    quantized = keras_saq.quantize_model(model, FLAGS.bits, calibration=x[:512])
    steps = len(x) // BATCH_SIZE * FLAGS.epochs
    if not steps:
        return quantized
    saq = keras_saq.SAQModel(quantized, rho=FLAGS.rho)
    schedule = keras.optimizers.schedules.CosineDecay(
        FLAGS.learning_rate, steps
    )
    saq.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    saq.fit(augmented(x, y), epochs=FLAGS.epochs, verbose=2)
    path = pathlib.Path(FLAGS.output) / f"{FLAGS.bits}.keras"
    quantized.save(path)
    return quantized


def run_reference(x):
    """Outputs of a file with integer inputs, fed as its scale says."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=FLAGS.reference)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    codes = np.clip(np.rint(x / scale) + zero_point, -128, 127)
    outputs = []
    for image in codes.astype(source["dtype"]):
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(outputs)


def main(argv):
    del argv
    keras.utils.set_random_seed(FLAGS.seed)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    x, y = cifar.load_data("cifar10", "test", None)
    rows = []
    train = (None, None)
    if not FLAGS.trained:
        train = cifar.load_data("cifar10", "train", None)
    model = fine_tuned(*train)
    reference = pathlib.Path(FLAGS.reference)
    rows.append(
        {
            "file": "reference int8",
            "top1": accuracy(run_reference(x), y),
            "bytes": reference.stat().st_size,
        }
    )
    print(json.dumps(rows[-1]), flush=True)
    paths = [reference]
    for storage in FLAGS.storages:
        path = folder / f"{FLAGS.bits}-{storage}.tflite"
        report = keras_saq.export_litert(model, path, storage=storage)
        parity = keras_saq.verify_litert(path, model, x)
        rows.append(
            {
                "file": f"{FLAGS.bits} {storage}",
                "top1": accuracy(parity.outputs[0], y),
                "keras_top1": accuracy(parity.predicted[0], y),
                "bytes": report.file_bytes,
                "equals_reference": parity.reference_exact,
                "max_steps": parity.max_lsb,
                "exact": parity.exact,
                "top1_agreement": parity.top1_agreement,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
        paths.append(path)
    latency = keras_saq.benchmark_litert(paths, rounds=200)
    for row, file in zip(rows, latency.files):
        row["bytes_ratio"] = row["bytes"] / reference.stat().st_size
        row["median_ms"], row["latency_ratio"] = file.median_ms, file.ratio
        row["cpu_ratio"] = file.cpu_ratio
    (folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)


def print_table(rows):
    print(
        "| file | top-1 | top-1 of `predict` | bytes | / reference | median ms "
        "| latency / reference | processor time / reference "
        "| = code-domain reference | largest difference from `predict` "
        "| equal outputs | top-1 agreement |"
    )
    print("| --- " * 12 + "|")
    for row in rows:
        cells = [row["file"], f"{row['top1']:.2%}", "", f"{row['bytes']:,}"]
        cells += [f"{row['bytes_ratio']:.3f}", f"{row['median_ms']:.3f}"]
        cells += [f"{row['latency_ratio']:.2f}", f"{row['cpu_ratio']:.2f}"]
        cells += [""] * 4
        if "keras_top1" in row:
            cells[2] = f"{row['keras_top1']:.2%}"
            cells[8:] = (
                "every output" if row["equals_reference"] else "NO",
                f"{row['max_steps']:.0f} steps",
                f"{row['exact']:.2%}",
                f"{row['top1_agreement']:.2%}",
            )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    define_flags()
    app.run(main)
