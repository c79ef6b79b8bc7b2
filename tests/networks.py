"""Small networks and data for the tests."""

import keras
import numpy as np

layers = keras.layers


def residual_network():
    """Every kind of layer that an integer file can hold, on 8x8 images."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", use_bias=False)(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.Conv2D(12, 1)(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = layers.ReLU()(layers.Add()([x, shortcut]))
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    z = layers.Conv2D(8, 1)(x)
    x = layers.MaxPooling2D()(layers.Concatenate()([y, z]))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(16, 3, strides=2)(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Dropout(0.1, seed=3)(layers.Flatten()(x))
    x = layers.Dense(16, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def preactivation_network():
    """Batch norms before the convolutions, and a residual stream."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
        x = layers.Add()([x, y])
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def sequential_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(momentum=0.8),
            layers.Activation("relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 1, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(10),
        ]
    )


def nested_network():
    """A backbone used as a layer."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    backbone = keras.Model(inputs, layers.Conv2D(8, 1)(x), name="backbone")
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            backbone,
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


NETWORKS = {
    "residual": residual_network,
    "preactivation": preactivation_network,
    "sequential": sequential_network,
    "nested": nested_network,
}


def images(num=64, seed=0):
    """Images that are learnable: a bright row or column gives the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 10
    x = rng.random((num, 8, 8, 1), dtype="float32") * 0.5
    for image, label in zip(x, labels):
        if label < 5:
            image[label + 1] += 0.5
        else:
            image[:, label - 4] += 0.5
    return x, labels.astype("int32")


def compile_model(model, optimizer=None):
    model.compile(
        optimizer or keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def fit(model, epochs=3, optimizer=None):
    x, y = images()
    compile_model(model, optimizer)
    model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0)
    return model


def numpy_variables(model):
    return [np.copy(keras.ops.convert_to_numpy(v)) for v in model.variables]


def assert_same_variables(a, b):
    """Every variable equal, bit for bit.

    But for the seeds of dropout, which Keras does not save.
    """
    first, second = numpy_variables(a), numpy_variables(b)
    assert len(first) == len(second)
    for x, y, variable in zip(first, second, a.variables):
        if not variable.path.startswith("seed_generator"):
            np.testing.assert_array_equal(x, y, err_msg=variable.path)
