"""Many devices: SAQ on several replicas does what it does on one.

Shows: the same model is trained on the same batches on one device and on
    several: with `tf.distribute.MirroredStrategy` on the TensorFlow backend,
    with `keras.distribution.DataParallel` on JAX (KERAS_BACKEND=jax). By
    default the CPU is split into virtual devices; with `--accelerators` the
    GPUs or TPUs that there are do it. On TensorFlow `sync_perturbation=True`
    gives the replicas one perturbation, that of the global batch; without it
    each replica has its own, as in the papers. On JAX it is always the global
    one. Batch norm is left out: replicas would normalize by their own part of
    the batch.
Needs: pip install ".[demo]", for JAX also: pip install jax
Time: 26 s on two busy CPU cores, 11 s of processor time; JAX: 40 s, 19 s of it.
Result: `python examples/many_devices.py`. The replicas add up floats in
    another order. In float (`--bits=float`) that is all: 1e-7 after five
    epochs. With quantized layers a last bit flips a code now and then, and the
    runs part slowly, here from the first epoch on, with KERAS_BACKEND=jax from
    the third (3e-8, 2e-6, 3e-4, 4e-3, 8e-3). With `--nosync` it is another
    training: 3e-2 after one epoch, 2e-1 after five. Virtual devices share the
    cores, so nothing is faster.

    epoch  loss, 1 device  2 devices  difference
    -----  --------------  ---------  ----------
    1            2.289174   2.289170     1.8e-04
    2            2.214276   2.214275     3.1e-03
    3            2.106418   2.106316     7.3e-03
    4            1.981590   1.981300     1.1e-02
    5            1.774112   1.773402     2.1e-02
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
_BATCH_SIZE = 64


def define_flags():
    flags.DEFINE_bool("smoke", False, "One short epoch each: does it run?")
    flags.DEFINE_integer("devices", 2, "Virtual CPU devices.", lower_bound=2)
    flags.DEFINE_bool(
        "accelerators", False, "Use all GPUs or TPUs instead of virtual CPUs."
    )
    flags.DEFINE_bool(
        "sync", True, "TensorFlow: one perturbation for all replicas."
    )
    flags.DEFINE_string(
        "bits", "w4a8", "Preset; 'float' for none, which is SAM."
    )
    flags.DEFINE_float(
        "rho", 0.1, "Radius of SAQ's perturbation.", lower_bound=0
    )
    flags.DEFINE_integer("epochs", 5, "Epochs of each training.", lower_bound=1)


def quantized_model(data):
    """Always the same weights and scales."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(48, 1, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
    if FLAGS.bits == "float":
        return model
    return keras_saq.quantize_model(
        model, FLAGS.bits, calibration=data.x_train[:256]
    )


class Epochs(keras.callbacks.Callback):
    """Keeps the loss and all trained variables of every epoch."""

    def __init__(self):
        super().__init__()
        self.losses, self.variables = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])
        self.variables.append(
            [
                keras.ops.convert_to_numpy(variable)
                for variable in self.model.trainable_variables
            ]
        )


def train(data, sync_perturbation=None):
    """What `Epochs` keeps of a training."""
    saq = keras_saq.SAQModel(
        quantized_model(data),
        rho=FLAGS.rho,
        sync_perturbation=sync_perturbation,
    )
    saq.compile(
        keras.optimizers.SGD(0.02, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    count = len(data.x_train) // _BATCH_SIZE * _BATCH_SIZE
    epochs = Epochs()
    saq.fit(
        data.x_train[:count],
        data.y_train[:count],
        batch_size=_BATCH_SIZE,
        epochs=1 if FLAGS.smoke else FLAGS.epochs,
        shuffle=False,
        verbose=2,
        callbacks=[epochs],
    )
    return epochs


def tensorflow_strategy():
    import tensorflow as tf

    if FLAGS.accelerators:
        return tf.distribute.MirroredStrategy()
    tf.get_logger().setLevel("WARNING")  # each reduction is logged otherwise
    cpu = tf.config.list_physical_devices("CPU")[0]
    # Before TensorFlow makes its first tensor.
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * FLAGS.devices
    )
    names = [f"CPU:{i}" for i in range(FLAGS.devices)]
    return tf.distribute.MirroredStrategy(names)


def train_on_tensorflow(data):
    strategy = tensorflow_strategy()
    one = train(data)
    with strategy.scope():
        many = train(data, sync_perturbation=FLAGS.sync)
    return one, many, strategy.num_replicas_in_sync


def train_on_jax(data):
    import jax

    if not FLAGS.accelerators:
        jax.config.update("jax_num_cpu_devices", FLAGS.devices)
    devices = keras.distribution.list_devices()
    one = train(data)
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    return one, train(data), len(devices)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        data = load_digits()
    except ImportError as error:
        sys.exit(str(error))
    backend = keras.backend.backend()
    trainers = {"tensorflow": train_on_tensorflow, "jax": train_on_jax}
    if backend not in trainers:
        sys.exit(f"Several devices: on tensorflow and jax, not on {backend}.")
    one, many, count = trainers[backend](data)
    rows = [
        (str(i + 1), f"{a:.6f}", f"{b:.6f}", f"{largest_difference(x, y):.1e}")
        for i, (a, b, x, y) in enumerate(
            zip(one.losses, many.losses, one.variables, many.variables)
        )
    ]
    header = ("epoch", "loss, 1 device", f"{count} devices", "difference")
    print(f"{backend}: losses, and the largest difference of a variable")
    print(format_table(header, rows))


def largest_difference(variables, others):
    return max(np.abs(a - b).max() for a, b in zip(variables, others))


if __name__ == "__main__":
    define_flags()
    app.run(main)
