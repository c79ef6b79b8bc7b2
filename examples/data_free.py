"""Quantized without one image, and what is left of the accuracy.

Shows: a network that was trained on 8x8 digits is quantized without its
    training data: calibrated on noise, on inputs that agree with its batch
    norms (`keras_saq.data_free`), and then trained against a generator, without
    and with sharpness (`keras_saq.reconstruction.zero_shot`, a reconstruction
    of ZSAQ, arXiv 2310.13315). Calibration on 256 real images is there to
    compare. The test images are for measuring alone.

    python examples/data_free.py --model=float.keras --data=cifar10

    takes a float model of your own, with inputs as the data set has them.
Needs: pip install ".[demo]"; for `--data`, ".[data]"
Time: 4 min on two busy CPU cores, 150 s of processor time.
Result: `python examples/data_free.py`, one seed, 497 test images, so that one
    image is 0.2 %. Noise is no data at 2 bits; inputs that agree with the batch
    norms are nearly as good as images, and training against the generator makes
    up for the rest. Sharpness does not help here.

    without data             bits  accuracy
    -----------------------  ----  --------
    float                            99.20%
    calibrated on noise      w4a4    96.78%
    calibrated on data_free  w4a4    99.40%
    calibrated on images     w4a4    99.40%
    zero_shot                w4a4    99.20%
    zero_shot, SAQ           w4a4    99.20%
    calibrated on noise      w2a4    18.31%
    calibrated on data_free  w2a4    98.59%
    calibrated on images     w2a4    99.20%
    zero_shot                w2a4    99.20%
    zero_shot, SAQ           w2a4    98.99%
"""

import sys

import keras
import numpy as np
from absl import app
from absl import flags

import keras_saq
from keras_saq.data import load_digits
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "Few steps: does it run?")
    flags.DEFINE_string("bits", "w4a4,w2a4", "Presets.")
    flags.DEFINE_integer("rounds", 200, "Of student and generator.")
    flags.DEFINE_float("rho", 0.1, "Radius of the sharpness-aware student.")
    flags.DEFINE_integer("seeds", 1, "How many seeds.", lower_bound=1)
    flags.DEFINE_string("model", None, "A float .keras or .h5 of your own.")
    flags.DEFINE_string("data", None, "Its data set in TFDS, to test on.")
    flags.DEFINE_integer("test_samples", 5000, "Test on so many of them.")
    flags.DEFINE_float("scale", 1.0, "Factor of its images.")


def digits_model(data, seed):
    """A residual network, trained in float."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers

    def conv(x, filters, size):
        x = layers.Conv2D(filters, size, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(conv(inputs, 16, 3))
    x = layers.MaxPooling2D()(layers.ReLU()(conv(x, 32, 3)))
    y = conv(layers.ReLU()(conv(x, 32, 3)), 32, 3)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
    )
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=65,
        epochs=1 if FLAGS.smoke else 15,
        verbose=0,
    )
    return model


def own_model():
    """The model of `--model`, its test images, and some training images."""
    import tensorflow_datasets as tfds

    model = keras.saving.load_model(FLAGS.model, compile=False)
    # Old files have a list of one input.
    model = keras.Model(model.inputs[0], model.outputs[0])
    parts = tfds.load(FLAGS.data, split=["train[:256]", "test"], batch_size=-1)
    train, test = (
        part["image"].numpy().astype("float32") * np.float32(FLAGS.scale)
        for part in parts
    )
    count = FLAGS.test_samples
    return model, test[:count], parts[1]["label"].numpy()[:count], train


def accuracies(model, x, y, real, seed):
    """Dict from a way of quantizing, and bits, to the accuracy."""

    def accuracy(q):
        scores = q.predict(x, batch_size=500, verbose=0)
        return 100 * float((scores.argmax(-1) == y).mean())

    made = keras_saq.data_free(
        model, 256, steps=10 if FLAGS.smoke else 300, seed=seed, verbose=0
    )
    random = np.random.default_rng(seed)
    noise = random.normal(size=made.shape).astype("float32")
    found = {("float", ""): accuracy(model)}
    for bits in FLAGS.bits.split(","):
        for name, inputs in (
            ("calibrated on noise", noise),
            ("calibrated on data_free", made),
            ("calibrated on images", real),
        ):
            q = keras_saq.quantize_model(model, bits, calibration=inputs)
            found[name, bits] = accuracy(q)
        for name, rho in (("zero_shot", 0.0), ("zero_shot, SAQ", FLAGS.rho)):
            q = keras_saq.quantize_model(model, bits, calibration=made)
            keras_saq.reconstruction.zero_shot(
                q,
                model,
                rounds=2 if FLAGS.smoke else FLAGS.rounds,
                rho=rho,
                learning_rate=3e-4,
                start=made,
                seed=seed,
                verbose=0,
            )
            found[name, bits] = accuracy(q)
    return found


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if (FLAGS.model is None) != (FLAGS.data is None):
        raise app.UsageError("--model and --data belong together.")
    runs = []
    for seed in range(FLAGS.seeds):
        if FLAGS.model is not None:
            model, x, y, real = own_model()
        else:
            try:
                data = load_digits()
            except ImportError as error:
                sys.exit(str(error))
            model = digits_model(data, seed)
            x, y, real = data.x_test, data.y_test, data.x_train[:256]
        runs.append(accuracies(model, x, y, real, seed))
    rows = []
    for key in runs[0]:
        values = [run[key] for run in runs]
        mean = f"{np.mean(values):.2f}%"
        if len(values) > 1:
            mean += f" +- {np.std(values, ddof=1):.2f}"
        rows.append((*key, mean))
    print(format_table(("without data", "bits", "accuracy"), rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
