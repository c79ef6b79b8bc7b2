"""Inputs that agree with the statistics of batch norms."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.reconstruction.data_free import statistics_loss

RANDOM = np.random.default_rng(0)


def trained(mean=0.0, deviation=1.0):
    """Batch norms with the statistics of data of a mean and deviation."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = inputs
    norms = []
    for filters in (6, 8):
        x = layers.Conv2D(filters, 3)(x)
        norms.append(layers.BatchNormalization())
        x = layers.ReLU()(norms[-1](x))
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = RANDOM.normal(size=(64, 12, 12, 1)) * RANDOM.normal(
        size=(64, 1, 1, 3)
    )
    data = (mean + deviation * data).astype("float32")
    keras_saq.callbacks.reestimate_batch_norm(model, data)
    return model, data


def moments(model, x):
    """What each batch norm reads, in NumPy."""
    found = []
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            part = keras.Model(model.input, layer.input)
            values = ops.convert_to_numpy(part(x)).astype("float64")
            found.append((values.mean((0, 1, 2)), values.var((0, 1, 2))))
    return found


def loss(model, x):
    """The formula, written anew."""
    total = 0.0
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for (mean, variance), norm in zip(moments(model, x), norms):
        m, v = (np.asarray(a) for a in (norm.moving_mean, norm.moving_variance))
        e = norm.epsilon
        total += ((mean - m) ** 2 / (v + e)).mean()
        total += (np.log((variance + e) / (v + e)) ** 2).mean()
    return total


def test_loss_against_numpy():
    model, _ = trained()
    x = RANDOM.normal(size=(16, 12, 12, 3)).astype("float32")
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    seen = [
        tuple(a.astype("float32") for a in pair) for pair in moments(model, x)
    ]
    found = float(statistics_loss(seen, norms))
    np.testing.assert_allclose(found, loss(model, x), rtol=1e-4)


@pytest.mark.parametrize("mean, deviation", [(0.0, 1.0), (120.0, 60.0)])
def test_inputs_are_like_the_data(mean, deviation):
    model, data = trained(mean, deviation)
    x = keras_saq.data_free(
        model, num_samples=40, steps=60, batch_size=32, verbose=0
    )
    assert x.shape == (40, 12, 12, 3) and x.dtype == np.float32
    noise = (mean + deviation * RANDOM.normal(size=x.shape)).astype("float32")
    assert loss(model, x) < 0.5 * loss(model, noise)
    assert 0.2 < x.std() / data.std() < 5
    again = keras_saq.data_free(
        model, num_samples=40, steps=60, batch_size=32, verbose=0
    )
    np.testing.assert_allclose(again, x, atol=1e-2 * deviation)
    for layer in model.layers:
        assert "call" not in layer.__dict__


def test_it_calibrates():
    model, data = trained()
    x = keras_saq.data_free(model, num_samples=32, steps=20, verbose=0)
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    expected = np.asarray(model(data))
    # The far ends of the data are in no statistics, and are clipped.
    error = np.abs(np.asarray(q(data)) - expected).mean()
    assert error < 0.05 * np.abs(expected).max()


def test_errors():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="statistics of batch norms"):
        keras_saq.data_free(model)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.BatchNormalization()(inputs))
    with pytest.raises(ValueError, match="known size"):
        keras_saq.data_free(model)
