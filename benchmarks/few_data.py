"""The tasks of `accuracy.py` where data are few: digits, and a transfer.

`digits`: the demo's network on embedded 8x8 digits, trained in float on the
same images first. `transfer`: a network of CIFAR-100 gets a head of ten
classes and is trained in float on CIFAR-10 images first. Float networks are
made once per seed and number of images.
"""

import functools

import cifar
import keras
import numpy as np

FLOAT_EPOCHS = {"digits": 60, "transfer": 30}


@functools.cache
def digits():
    """Images (1797, 8, 8, 1) in 0..1 and labels, in an order of their own."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = (found.images / 16).astype("float32")[..., None]
    return images[order], found.target[order]


def load_data(network, split):
    """Images and labels; of digits the last 1,397 are the test."""
    if network == "digits":
        images, labels = digits()
        part = slice(None, 400) if split == "train" else slice(400, None)
        return images[part], labels[part]
    # As the network of CIFAR-100 wants them.
    return cifar.load_data(
        "cifar10", split, cifar.NETWORKS["preact_resnet20"][2]
    )


_FLOAT = {}


def float_model(network, checkpoint, train, seed):
    """The float network, trained on the images of the task."""
    key = network, len(train[0]), seed
    if key not in _FLOAT:
        keras.utils.set_random_seed(seed)
        model = _untrained(network, checkpoint)
        epochs = FLOAT_EPOCHS[network]
        compile_model(model, epochs * (len(train[0]) // 32))
        model.fit(batches(network, train, 32, seed), epochs=epochs, verbose=0)
        _FLOAT[key] = model
    return _FLOAT[key]


def _untrained(network, checkpoint):
    if network == "digits":
        from keras_saq.cli.demo_training import digits_network

        return digits_network()
    model = cifar.preact_resnet20(checkpoint)
    features = model.layers[-1].input
    head = keras.layers.Dense(10, name="head")(features)
    return keras.Model(model.inputs, head, name="transfer")


def batches(network, train, batch_size, seed):
    """Shuffled whole batches; crops and flips of the photographs."""
    if network == "transfer":
        return cifar.example.augmented(*train, batch_size, seed)
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(train)
    data = data.shuffle(len(train[0]), seed=seed)
    return data.batch(batch_size, drop_remainder=True)


def compile_model(model, steps, rate=1e-3):
    """Adam with a cosine from 1e-3 to 0."""
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
