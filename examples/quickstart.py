"""Quickstart: from a float model to a proven 4-bit file.

Shows: a small network learns 8x8 digits in float, is quantized with 4-bit
    weights and 8-bit activations, trained on with QAT and with SAQ, and each is
    exported to an integer `.tflite` and verified.
Needs: pip install ".[demo]"
Time: 36 s on two busy CPU cores, 25 s of processor time.
Result: `python examples/quickstart.py`, TensorFlow 2.21. SAQ does not beat
    QAT here: both are wrong on the same number of images, and one image is
    0.2 %. (With KERAS_BACKEND=jax: float 97.59 %, QAT 98.59 %, SAQ 98.19 %.)

    model     accuracy   bytes  file = reference  equals predict
    --------  --------  ------  ----------------  --------------
    float       98.59%
    w4a8 QAT    99.20%  15,504      every output         100.00%
    w4a8 SAQ    99.20%  15,504      every output         100.00%
"""

import pathlib
import sys

import keras
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import load_digits
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "One short epoch each: does it run?")
    flags.DEFINE_string("bits", "w4a8", "Preset: bits of weights, activations.")
    flags.DEFINE_float(
        "rho", 0.1, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_integer(
        "epochs", 15, "Epochs of each training.", lower_bound=1
    )
    flags.DEFINE_string("output", "quickstart", "Folder of the files.")


def network():
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    keras.utils.set_random_seed(0)
    try:
        data = load_digits()
    except ImportError as error:
        sys.exit(str(error))
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)

    def train(model, rate):
        model.compile(
            keras.optimizers.Adam(rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        epochs = 1 if FLAGS.smoke else FLAGS.epochs
        model.fit(data.x_train, data.y_train, epochs=epochs, verbose=2)
        return model.evaluate(data.x_test, data.y_test, verbose=0)[1]

    model = network()
    rows = [("float", f"{train(model, 3e-3):.2%}", "", "", "")]
    for method in ("QAT", "SAQ"):
        q = keras_saq.quantize_model(
            model, FLAGS.bits, calibration=data.x_train[:256]
        )
        if method == "SAQ":
            q = keras_saq.SAQModel(q, rho=FLAGS.rho)
        accuracy = train(q, 1e-3)
        path = output / f"{method.lower()}.tflite"
        report = q.export(path, format="litert")
        parity = keras_saq.verify_litert(path, q, data.x_test)
        rows.append(
            (
                f"{FLAGS.bits} {method}",
                f"{accuracy:.2%}",
                f"{report.file_bytes:,}",
                "every output" if parity.reference_exact else "NO",
                f"{parity.exact:.2%}",
            )
        )
    header = (
        "model",
        "accuracy",
        "bytes",
        "file = reference",
        "equals predict",
    )
    print(format_table(header, rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
