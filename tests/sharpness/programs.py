"""Programs that the tests run in processes of their own.

python -m tests.sharpness.programs <name> <arguments>
"""

import json
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_saq  # noqa: E402
from keras_saq.layers import quantize_layer  # noqa: E402
from keras_saq.policy import QuantizeConfig  # noqa: E402
from keras_saq.quantizers import LSQ  # noqa: E402

layers = keras.layers


def network(dropout=0.0, norm=False):
    """Quantized weights, the same values on every backend."""
    inputs = keras.Input((6,))
    x = inputs
    dense = []
    for units, activation in ((8, "relu"), (3, None)):
        weight = LSQ(4, narrow_range=True, channel_axes=(-1,))
        layer = quantize_layer(
            layers.Dense(units, activation=activation),
            QuantizeConfig({"kernel": weight}),
        )
        x = layer(x)
        dense.append(layer)
        if units == 8 and norm:
            x = layers.BatchNormalization()(x)
        if units == 8 and dropout:
            x = layers.Dropout(dropout, seed=5)(x)
    rng = np.random.default_rng(7)
    for layer in dense:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
        layer.initialize_weight_scales()
        # Not where the largest weight is exactly the last code.
        (log_scale,) = layer.kernel_quantizer.trainable_variables
        log_scale.assign(log_scale - 0.0517)
    return keras.Model(inputs, x)


def data(count=32):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 6)).astype("float32")
    return x, rng.normal(size=(count, 3)).astype("float32")


def values(model):
    return {
        f"{i:03d}": keras.ops.convert_to_numpy(v)
        for i, v in enumerate(model.variables)
        if v.name != "seed_generator_state"
    }


def agree(path):
    """Trains from the same start; for comparing backends."""
    made = {}
    for options in (
        {"rho": 0.2},
        {"rho": 0.2, "strategy": "looksam", "adaptive": "qasam"},
    ):
        model = keras_saq.SAQModel(network(norm=True), **options)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        x, y = data(16)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        made.update(
            (f"{options.get('strategy')}_{name}", value)
            for name, value in values(model).items()
        )
    np.savez(path, **made)


def resume(path, folder, kill):
    """Trains with backups; kills itself inside of the third epoch."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(3)
    model = keras_saq.SAQModel(
        network(dropout=0.3, norm=True), rho=0.2, strategy="looksam"
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    callbacks = [keras.callbacks.BackupAndRestore(folder)]

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 2 and batch == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill == "kill":
        callbacks.append(Kill())
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=5,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )
    np.savez(path, **values(model))


def mirrored(path, replicas, options):
    """Trains on virtual CPUs with `tf.distribute.MirroredStrategy`."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * int(replicas)
    )
    devices = [f"CPU:{i}" for i in range(int(replicas))]
    strategy = tf.distribute.MirroredStrategy(devices)
    made = {}
    for name, each in json.loads(options).items():
        norm = each.pop("norm", False)
        with strategy.scope():
            model = keras_saq.SAQModel(network(norm=norm), **each)
            model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
        x, y = data(16)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
        history = model.fit(dataset, epochs=2, verbose=0).history
        made[f"{name}_loss"] = history["loss"]
        # Two sums of losses, which replicas divide; what counts is the ratio.
        ascent = model.training_state.ascent
        made[f"{name}_factor"] = model.ascent_factor or 0.0
        ascent.assign([0.0, 0.0])
        made.update((f"{name}_{k}", v) for k, v in values(model).items())
    np.savez(path, **made)


def multi_worker(path):
    """What `SAQModel.fit` says under MultiWorkerMirroredStrategy."""
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras_saq.SAQModel(network(), rho=0.1)
        model.compile("sgd", "mse")
    try:
        model.fit(*data(), batch_size=8, verbose=0)
    except ValueError as error:
        with open(path, "w") as file:
            file.write(str(error))


def data_parallel(path, devices, options):
    """Trains with `keras.distribution.DataParallel` on virtual CPUs."""
    import jax

    if int(devices) > 1:
        found = keras.distribution.list_devices()
        if len(found) != int(devices):
            raise RuntimeError(f"{jax.devices()}")
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=found)
        )
    options = json.loads(options)
    model = keras_saq.SAQModel(network(norm=True), **options)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    np.savez(path, **values(model))


def two_processes(path, address, process):
    """The same over two processes; each is given the whole batch's half."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(address, 2, int(process))
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(auto_shard_dataset=False)
    )
    model = keras_saq.SAQModel(network(norm=True), rho=0.2)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    x, y = data()
    # Process i feeds its half of each batch of 8.
    x, y = (a.reshape(4, 2, 4, -1)[:, int(process)] for a in (x, y))
    x, y = (a.reshape(16, -1) for a in (x, y))
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    if process == "0":
        np.savez(path, **values(model))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
