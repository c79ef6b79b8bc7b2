"""From TensorFlow Model Optimization (TFMOT) to Keras 3.

Shows: a quantization-aware model the way TFMOT's users write it, with the same
    names, for Keras 3 layers:

    tfmot.quantization.keras               keras_saq
    -------------------------------------  ------------------------------------
    quantize_model(model)                  quantize_model(model, "w8a8")
    quantize_annotate_layer(layer, config) the same
    quantize_annotate_model(model)         the same
    quantize_apply(model, scheme)          quantize_apply(model, policy)
    quantize_scope(objects)                the same, for classes of your own
    QuantizeConfig, its methods            the same; set_* need not be written
    quantizers.LastValueQuantizer(4, ...)  quantizers.LSQ(4, ...), learned scale
    TFLiteConverter, optimizations         model.export(path, format="litert")

    One annotated layer gets 4-bit weights from a config with TFMOT's methods,
    the others the policy. With `--tfmot`, and tensorflow-model-optimization
    installed, the config is a subclass of TFMOT's own class, with TFMOT's own
    quantizers, which are read, not run.
Needs: pip install ".[demo]"; for --tfmot: pip install ".[demo,tfmot]"
Time: 12 s on two busy CPU cores, 11 s of processor time.
Result: `python examples/migrate_from_tfmot.py`; with `--tfmot` the
    accuracies came out the same. SAQ is not used here.

    layer   type    weight bits  input bits  ...
    conv2d  Conv2D            8           8
    hidden  Dense             4           8
    logits  Dense             8           8

    model  accuracy   bytes  file = reference
    -----  --------  ------  ----------------
    float    96.78%
    QAT      96.98%  17,392      every output
"""

import pathlib
import sys

import keras
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import load_digits
from keras_saq.quantizers import LSQ
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "One short epoch each: does it run?")
    flags.DEFINE_bool("tfmot", False, "Use a config and quantizers of TFMOT.")
    flags.DEFINE_string("policy", "w8a8", "What layers without a config get.")
    flags.DEFINE_integer(
        "epochs", 10, "Epochs of each training.", lower_bound=1
    )
    flags.DEFINE_string("output", "migrate", "Folder of the files.")


class FourBits(keras_saq.QuantizeConfig):
    """4-bit weights per channel, written with TFMOT's methods."""

    def get_weights_and_quantizers(self, layer):
        per_channel = LSQ(4, narrow_range=True, channel_axes=(-1,))
        return [(layer.kernel, per_channel)]

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, LSQ(8, signed=None))]

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


def four_bits_of_tfmot():
    """The same as TFMOT's user has it."""
    try:
        import tensorflow_model_optimization as tfmot
    except ImportError as error:
        sys.exit(f'TFMOT: pip install "keras-saq[tfmot]" ({error})')
    tfmot_keras = tfmot.quantization.keras

    class FourBitsOfTFMOT(tfmot_keras.QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            quantizer = tfmot_keras.quantizers.LastValueQuantizer(
                num_bits=4, per_axis=True, symmetric=True, narrow_range=True
            )
            return [(layer.kernel, quantizer)]

        def get_activations_and_quantizers(self, layer):
            quantizer = tfmot_keras.quantizers.MovingAverageQuantizer(
                num_bits=8, per_axis=False, symmetric=False, narrow_range=False
            )
            return [(layer.activation, quantizer)]

        def set_quantize_weights(self, layer, quantize_weights):
            layer.kernel = quantize_weights[0]

        def set_quantize_activations(self, layer, quantize_activations):
            layer.activation = quantize_activations[0]

        def get_output_quantizers(self, layer):
            return []

        def get_config(self):
            return {}

    return FourBitsOfTFMOT()


def annotated_model(config):
    """A float model; one layer in it is annotated with a config."""
    layers = keras.layers
    hidden = layers.Dense(64, activation="relu", name="hidden")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(24, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            keras_saq.quantize_annotate_layer(hidden, config),
            layers.Dense(10, name="logits"),
        ]
    )
    # The other layers too; they get the policy.
    return keras_saq.quantize_annotate_model(model)


def train(model, data):
    """Accuracy on the test images after training."""
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    epochs = 1 if FLAGS.smoke else FLAGS.epochs
    model.fit(data.x_train, data.y_train, epochs=epochs, verbose=2)
    return model.evaluate(data.x_test, data.y_test, verbose=0)[1]


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

    config = four_bits_of_tfmot() if FLAGS.tfmot else FourBits()
    # As in TFMOT: the scope is for classes that are not registered.
    with keras_saq.quantize_scope({type(config).__name__: type(config)}):
        model = annotated_model(config)
        rows = [("float", f"{train(model, data):.2%}", "", "")]
        model.save(output / "annotated.keras")
        model = keras.saving.load_model(output / "annotated.keras")
        q = keras_saq.quantize_apply(
            model, FLAGS.policy, calibration=data.x_train[:256]
        )
    accuracy = train(q, data)
    keras_saq.summary(q)
    path = output / "model.tflite"
    report = q.export(path, format="litert")
    parity = keras_saq.verify_litert(path, q, data.x_test)
    exact = "every output" if parity.reference_exact else "NO"
    rows.append(("QAT", f"{accuracy:.2%}", f"{report.file_bytes:,}", exact))
    header = ("model", "accuracy", "bytes", "file = reference")
    print(format_table(header, rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
