"""A train step of your own, together with SAQ.

Shows: a subclass of `SAQModel` that mixes the images of a batch (mixup,
    arXiv 1710.09412) in `train_step` and adds a penalty on large logits in
    `compute_loss`. What `train_step` does to the batch holds for both of SAQ's
    passes; `compute_loss` is called in each. The step has one signature on all
    backends: `(data,)` on TensorFlow and torch, `(state, data)` on JAX.
Needs: pip install ".[demo]"
Time: 34 s on two busy CPU cores, 26 s of processor time.
Result: `python examples/custom_train_step.py`. One seed, and one image is
    0.2 %: no difference here is a finding. With KERAS_BACKEND=jax SAQ had
    97.59 % and QAT 97.99 %. Mixup and the penalty raise the loss on clean
    images, as they are meant to.

    training                    test accuracy  test loss
    --------------------------  -------------  ---------
    float                              98.19%      0.052
    w2a4 QAT                           98.99%      0.029
    w2a4 SAQ                           99.40%      0.032
    w2a4 SAQ with its own step         98.39%      0.199
"""

import sys

import keras
from absl import app
from absl import flags
from keras import ops

import keras_saq
from keras_saq.data import load_digits
from keras_saq.table import format_table

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_bool("smoke", False, "One short epoch each: does it run?")
    flags.DEFINE_integer(
        "epochs", 12, "Epochs of each training.", lower_bound=1
    )
    flags.DEFINE_string("bits", "w2a4", "Preset: bits of weights, activations.")
    flags.DEFINE_float(
        "rho", 0.1, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_float("share", 0.8, "Share of an image in its mixture.")
    flags.DEFINE_float("penalty", 1e-3, "Weight of the squared logits.")


class MixupSAQ(keras_saq.SAQModel):
    """Mixup and a penalty on logits, in both passes of SAQ.

    Args:
        share: share of each image in its mixture, 0.5 to 1.
        penalty: weight of the mean of the squared logits.
        **kwargs: those of `keras_saq.SAQModel`.
    """

    def __init__(self, model, share=0.8, penalty=1e-3, **kwargs):
        super().__init__(model, **kwargs)
        self.share = share
        self.penalty = penalty

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = super().compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=sample_weight
        )
        return loss + self.penalty * ops.mean(ops.square(y_pred))

    def train_step(self, *args):
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self.share * x + (1 - self.share) * ops.flip(x, axis=0)
        y = self.share * y + (1 - self.share) * ops.flip(y, axis=0)
        return super().train_step(*state, (x, y, sample_weight))

    def get_config(self):
        own = {"share": self.share, "penalty": self.penalty}
        return {**super().get_config(), **own}


def network():
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(24, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(48, 1, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        data = load_digits()
    except ImportError as error:
        sys.exit(str(error))
    y_train, y_test = (
        keras.utils.to_categorical(y, 10) for y in (data.y_train, data.y_test)
    )

    def train(model, learning_rate):
        model.compile(
            keras.optimizers.Adam(learning_rate),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        epochs = 1 if FLAGS.smoke else FLAGS.epochs
        model.fit(data.x_train, y_train, epochs=epochs, verbose=2)
        loss, accuracy = model.evaluate(data.x_test, y_test, verbose=0)
        return f"{accuracy:.2%}", f"{loss:.3f}"

    keras.utils.set_random_seed(0)
    float_model = network()
    rows = [("float", *train(float_model, 3e-3))]
    variants = {
        "QAT": lambda q: q,
        "SAQ": lambda q: keras_saq.SAQModel(q, rho=FLAGS.rho),
        "SAQ with its own step": lambda q: MixupSAQ(
            q, FLAGS.share, FLAGS.penalty, rho=FLAGS.rho
        ),
    }
    for name, wrap in variants.items():
        keras.utils.set_random_seed(0)
        q = keras_saq.quantize_model(
            float_model, FLAGS.bits, calibration=data.x_train[:256]
        )
        print(name)
        rows.append((f"{FLAGS.bits} {name}", *train(wrap(q), 1e-3)))
    print(format_table(("training", "test accuracy", "test loss"), rows))


if __name__ == "__main__":
    define_flags()
    app.run(main)
