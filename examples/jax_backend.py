"""JAX: trained, quantized, exported and verified without TensorFlow.

Shows: the program sets KERAS_BACKEND=jax (unless it is set) before Keras is
    imported, and makes TensorFlow impossible to import, since nothing here
    needs it. It trains in float and with SAQ, writes an integer `.tflite`, and
    runs it with `ai_edge_litert`.
Needs: pip install ".[demo]" jax
Time: 17 s on two busy CPU cores, 17 s of processor time.
Result: `python examples/jax_backend.py`, JAX 0.10. The float network was
    trained half as long as the quantized one in the end; QAT was not compared.

    model                   test accuracy
    ----------------------  -------------
    float                          94.16%
    w4a8 SAQ                       97.79%
    its file, 15,504 bytes         97.79%

    File and code-domain reference: equal on all 4,970 outputs.
"""

import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # whoever imports it gets an ImportError

import keras  # noqa: E402
from absl import app  # noqa: E402
from absl import flags  # noqa: E402

import keras_saq  # noqa: E402
from keras_saq.data import load_digits  # noqa: E402
from keras_saq.table import format_table  # noqa: E402

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
    flags.DEFINE_string("output", "jax_backend", "Folder of the file.")


def network():
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def run_file(path, x):
    """What LiteRT makes of a batch."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])


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

    def train(model, learning_rate):
        model.compile(
            keras.optimizers.Adam(learning_rate),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        epochs = 1 if FLAGS.smoke else FLAGS.epochs
        # Whole batches only: one shape, compiled once.
        model.fit(
            data.x_train[:1280],
            data.y_train[:1280],
            batch_size=64,
            epochs=epochs,
            verbose=2,
        )
        return model.evaluate(data.x_test, data.y_test, verbose=0)[1]

    model = network()
    rows = [("float", f"{train(model, 3e-3):.2%}")]
    q = keras_saq.quantize_model(
        model, FLAGS.bits, calibration=data.x_train[:256]
    )
    saq = keras_saq.SAQModel(q, rho=FLAGS.rho)
    rows.append((f"{FLAGS.bits} SAQ", f"{train(saq, 1e-3):.2%}"))
    path = output / "model.tflite"
    report = saq.export(path, format="litert")
    parity = keras_saq.verify_litert(path, saq, data.x_test)
    hits = run_file(path, data.x_test).argmax(axis=-1) == data.y_test
    rows.append(
        (f"its file, {report.file_bytes:,} bytes", f"{hits.mean():.2%}")
    )
    print(format_table(("model", "test accuracy"), rows))
    print(parity)
    print(f"Keras backend: {keras.backend.backend()}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
