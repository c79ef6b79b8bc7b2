"""Maxima over volumes: integers in the file, equal to the reference."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq


def maxima():
    yield layers.GlobalMaxPooling3D()
    yield layers.GlobalMaxPooling3D(keepdims=True)


@pytest.mark.parametrize("preset", ["w8a8", "w4a8"])
@pytest.mark.parametrize("index", range(2))
def test_global_maximum_of_a_volume_is_exact(index, preset, tmp_path):
    inputs = keras.Input((3, 4, 5, 2))
    y = list(maxima())[index](layers.Dense(6, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(y))
    data = np.random.default_rng(0).normal(size=(16, 3, 4, 5, 2))
    data = data.astype(np.float32)
    qmodel = keras_saq.quantize_model(model, preset, calibration=data)
    path = tmp_path / "model.tflite"
    report = keras_saq.export_litert(qmodel, path)
    assert not report.islands
    parity = keras_saq.verify_litert(path, qmodel, data)
    assert parity.reference_exact and parity.reference_max_lsb == 0
