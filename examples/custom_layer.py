"""Layers of your own, with a `QuantizeConfig`: trained, saved, exported.

Shows: three layers that the library does not know, in the same network.
    `Scale` multiplies channels by a learned vector; a rule gives it a config of
    fields. `Mixing` multiplies by a learned matrix; it is annotated with a
    config that is written with TFMOT's methods. `MixingOfLayers` computes
    the same from a Keras layer and needs no config. All three are trained in
    float, then quantized and trained with SAQ, saved, loaded without a scope
    and exported. What has no integer kernel is a float island in the file,
    which says so.
Needs: pip install ".[demo]"
Time: 33 s on two busy CPU cores, 33 s of processor time.
Result: `python examples/custom_layer.py`. QAT was not compared here.

    layer            accuracy    loaded   bytes  file = reference
    ---------------  --------  --------  ------  ----------------
    with_rule          97.18%  the same  14,008      every output
    with_annotation    97.59%  the same  16,720      every output
    with_layers        97.59%  the same  14,336      every output

    One seed; the float islands are the multiplication of `Scale` and the
    matrix product of `Mixing`.
"""

import pathlib
import sys

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import load_digits
from keras_saq.quantizers import LSQ
from keras_saq.table import format_table

FLAGS = flags.FLAGS
layers = keras.layers


def define_flags():
    flags.DEFINE_bool("smoke", False, "One short epoch each: does it run?")
    flags.DEFINE_integer(
        "epochs", 10, "Epochs of each training.", lower_bound=1
    )
    flags.DEFINE_float(
        "rho", 0.05, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_string("output", "custom_layer", "Folder of the files.")


@keras.saving.register_keras_serializable("custom_layer")
class Scale(layers.Layer):
    """Multiplies channels by a learned vector."""

    def build(self, input_shape):
        self.gain = self.add_weight(
            shape=(input_shape[-1],), initializer="ones", name="gain"
        )

    def call(self, x):
        return x * self.gain


@keras.saving.register_keras_serializable("custom_layer")
class Mixing(layers.Layer):
    """Multiplies channels by a learned matrix."""

    def build(self, input_shape):
        size = input_shape[-1]
        self.matrix = self.add_weight(shape=(size, size), name="matrix")

    def call(self, x):
        return keras.ops.matmul(x, self.matrix)


@keras.saving.register_keras_serializable("custom_layer")
class MixingOfLayers(layers.Layer):
    """The same, from a layer of Keras."""

    def build(self, input_shape):
        self.mix = layers.Dense(input_shape[-1], use_bias=False)
        self.mix.build(input_shape)

    def call(self, x):
        return self.mix(x)


@keras.saving.register_keras_serializable("custom_layer")
class MatrixConfig(keras_saq.QuantizeConfig):
    """As users of TFMOT write it."""

    def get_weights_and_quantizers(self, layer):
        per_column = LSQ(4, narrow_range=True, channel_axes=(-1,))
        return [(layer.matrix, per_column)]

    def get_output_quantizers(self, layer):
        return [LSQ(8)]

    def get_config(self):
        return {}


def network(layer):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(layer(x))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def train(model, data, epochs):
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data.x_train, data.y_train, epochs=epochs, verbose=0)
    return model


def with_rule(trained, calibration):
    """`Scale`, chosen by a rule; all else is as in the preset."""
    per_vector = LSQ(8, narrow_range=True)
    config = keras_saq.QuantizeConfig({"gain": per_vector}, outputs=LSQ(8))
    policy = keras_saq.QuantizePolicy(
        rules=(
            keras_saq.Rule(layer_type="Scale", config=config),
            *keras_saq.QuantizePolicy.preset("w4a8").rules,
        )
    )
    return keras_saq.quantize_model(trained(Scale()), policy, calibration)


def with_annotation(trained, calibration):
    """`Mixing`, annotated; the annotated model gives all layers a config."""
    mixing = keras_saq.quantize_annotate_layer(Mixing(), MatrixConfig())
    model = keras_saq.quantize_annotate_model(trained(mixing))
    return keras_saq.quantize_apply(model, "w4a8", calibration)


def with_layers(trained, calibration):
    """`MixingOfLayers`: what is inside of it is found."""
    model = trained(MixingOfLayers())
    return keras_saq.quantize_model(model, "w4a8", calibration)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    output = pathlib.Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    try:
        data = load_digits()
    except ImportError as error:
        sys.exit(str(error))
    rows = []
    epochs = 1 if FLAGS.smoke else FLAGS.epochs
    for make in (with_rule, with_annotation, with_layers):
        print(make.__doc__)
        keras.utils.set_random_seed(0)
        quantized = make(
            lambda layer: train(network(layer), data, epochs),
            data.x_train[:256],
        )
        saq = keras_saq.SAQModel(quantized, rho=FLAGS.rho)
        train(saq, data, epochs)
        accuracy = saq.evaluate(data.x_test, data.y_test, verbose=0)[1]
        path = output / f"{make.__name__}.keras"
        saq.save(path)
        loaded = keras.saving.load_model(path)
        same = np.array_equal(
            loaded.predict(data.x_test, verbose=0),
            saq.predict(data.x_test, verbose=0),
        )
        exported = export(loaded, path.with_suffix(".tflite"), data.x_test)
        loads = "the same" if same else "OTHER"
        rows.append((make.__name__, f"{accuracy:.2%}", loads, *exported))
    header = ("layer", "accuracy", "loaded", "bytes", "file = reference")
    print(format_table(header, rows))


def export(model, path, x):
    """Bytes of the file, and whether it computes the same."""
    report = model.export(path, format="litert")
    for layer, reason in report.islands:
        print(f"\nfloat island: {layer}: {reason}\n")
    parity = keras_saq.verify_litert(path, model, x)
    exact = "every output" if parity.reference_exact else "NO"
    return f"{report.file_bytes:,}", exact


if __name__ == "__main__":
    define_flags()
    app.run(main)
