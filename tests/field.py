"""Small networks from people's reports, taken the whole way."""

import keras
import numpy as np
from keras import layers
from keras import ops

import keras_saq

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")
VECTORS = RANDOM.normal(size=(64, 16)).astype("float32")


def gap(model, q, x):
    """Largest difference, as a part of the float model's largest output."""
    a, b = (ops.convert_to_numpy(m(x)) for m in (model, q))
    return float(np.abs(a - b).max() / np.abs(a).max())


def whole_way(model, x, folder, policy="w8a8", limit=0.1, samples=8):
    """Quantizes, exports and verifies; the export's report and the parity."""
    q = keras_saq.quantize_model(model, policy, calibration=x)
    if limit is not None:
        assert gap(model, q, x) < limit
    path = folder / "model.tflite"
    report = keras_saq.export_litert(q, path)
    first = keras.tree.map_structure(lambda a: a[:samples], x)
    parity = keras_saq.verify_litert(path, q, first)
    assert parity.within_bounds, parity
    return report, parity


def between(function, shape=(8, 8, 3)):
    """A convolution and a function of what it makes."""
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    return keras.Model(inputs, function(x))
