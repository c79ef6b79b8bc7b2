"""Fine-tuning: a `keras.applications` network for one's own images, in 4 bits.

Shows: MobileNetV2 with a new head learns a part of CIFAR-10, resized, in float;
    it is quantized, fine-tuned with QAT and with SAQ, its batch-norm statistics
    are measured again (those of `keras.applications` average over a thousand
    steps, more than are trained here), and it is exported and verified.
Needs: pip install ".[data]"
Time: 5 min on two busy CPU cores, 185 s of processor time.
Result: `python examples/finetune_application.py`. From random weights and 2,500
    images little is learned, and SAQ does not beat QAT: an image is 0.2 %. The
    numbers to look at are those of the file. Ways to more: `--weights=imagenet
    --size=96`, which was not run here, and `--fraction=1`.

    model     accuracy    bytes  file = reference  top-1
    --------  --------  -------  ----------------  -----
    float       24.20%
    w4a8 QAT    27.40%  106,264      every output  90.5%
    w4a8 SAQ    25.40%  106,264      every output  91.5%

    "top-1" is how often file and `predict`, which computes in float32, have the
    same largest output, on 200 images.
"""

import pathlib
import sys

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import proxy_split
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "Random images, one step: does it run?")
    flags.DEFINE_string(
        "weights",
        None,
        "'imagenet', which is downloaded, or a file of weights for "
        "MobileNetV2; by default it starts from random ones.",
    )
    flags.DEFINE_float("alpha", 0.35, "Width of MobileNetV2.")
    flags.DEFINE_string(
        "cut_at",
        "block_12_add",
        "Layer of MobileNetV2 whose output the head reads; the rest is left "
        "out, which suits small images. 'out_relu' is the whole network.",
    )
    flags.DEFINE_integer(
        "size", 48, "Height and width of images.", lower_bound=1
    )
    flags.DEFINE_float("fraction", 0.05, "Part of CIFAR-10 that is used.")
    flags.DEFINE_string("bits", "w4a8", "Preset: bits of weights, activations.")
    flags.DEFINE_integer("float_epochs", 6, "Epochs in float.", lower_bound=1)
    flags.DEFINE_integer(
        "epochs", 2, "Epochs of each quantized training.", lower_bound=1
    )
    flags.DEFINE_float("learning_rate", 1e-3, "Of the float training.")
    flags.DEFINE_float(
        "rho", 0.05, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_string("output", "finetune", "Folder of the files.")


def load_split(split):
    """Resized images with values from 0 to 255, and labels."""
    if FLAGS.smoke:
        rng = np.random.default_rng(0)
        shape = (16, FLAGS.size, FLAGS.size, 3)
        return rng.uniform(0, 255, shape).astype("float32"), np.arange(16) % 10
    try:
        data = proxy_split("cifar10", FLAGS.fraction, split=split)
    except ImportError as error:
        sys.exit(str(error))
    size = (FLAGS.size, FLAGS.size)
    images = keras.ops.image.resize(data.x, size, data_format="channels_last")
    return keras.ops.convert_to_numpy(images), data.y


def network():
    inputs = keras.Input((FLAGS.size, FLAGS.size, 3), name="image")
    # The scaling that MobileNetV2 was trained with; part of the file.
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    backbone = keras.applications.MobileNetV2(
        input_shape=(FLAGS.size, FLAGS.size, 3),
        alpha=FLAGS.alpha,
        include_top=False,
        weights=FLAGS.weights,
    )
    cut_at = "block_1_expand_relu" if FLAGS.smoke else FLAGS.cut_at
    features = backbone.get_layer(cut_at)
    backbone = keras.Model(backbone.inputs, features.output, name="backbone")
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="head")(x))


def train(model, data, test, epochs, learning_rate):
    """Accuracy on the test images after training."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    statistics = keras_saq.callbacks.BatchNormReestimation(data[0][:1024])
    model.fit(
        *data,
        batch_size=64,
        epochs=1 if FLAGS.smoke else epochs,
        verbose=2,
        callbacks=[statistics],
    )
    return model.evaluate(*test, batch_size=256, verbose=0)[1]


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    keras.utils.set_random_seed(0)
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    data, test = load_split("train"), load_split("test")
    print(f"{len(data[0])} images to learn from, {len(test[0])} to test with")

    model = network()
    accuracy = train(model, data, test, FLAGS.float_epochs, FLAGS.learning_rate)
    rows = [("float", f"{accuracy:.2%}", "", "", "")]
    for method in ("SAQ",) if FLAGS.smoke else ("QAT", "SAQ"):
        keras.utils.set_random_seed(0)
        q = keras_saq.quantize_model(
            model, FLAGS.bits, calibration=data[0][:256]
        )
        if method == "SAQ":
            q = keras_saq.SAQModel(q, rho=FLAGS.rho)
        accuracy = train(q, data, test, FLAGS.epochs, FLAGS.learning_rate / 3)
        path = output / f"{method.lower()}.tflite"
        report = q.export(path, format="litert")
        parity = keras_saq.verify_litert(path, q, test[0][:200])
        rows.append(
            (
                f"{FLAGS.bits} {method}",
                f"{accuracy:.2%}",
                f"{report.file_bytes:,}",
                "every output" if parity.reference_exact else "NO",
                f"{parity.top1_agreement:.1%}",
            )
        )
    header = ("model", "accuracy", "bytes", "file = reference", "top-1")
    print(format_table(header, rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
