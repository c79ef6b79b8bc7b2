"""What the callbacks promise, against what the model then is."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq import callbacks
from keras_saq.sharpness.participants import scale_variables

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)


def network(norm=False):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = layers.Dense(8)(inputs)
    if norm:
        x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5, seed=3)(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def quantized(saq=False, **kwargs):
    q = keras_saq.quantize_model(network(**kwargs), "w4a8", calibration=X)
    model = keras_saq.SAQModel(q, rho=0.05) if saq else q
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def values(variables):
    return [ops.convert_to_numpy(v) for v in variables]


def fit(model, epochs, *used):
    return model.fit(
        X, Y, batch_size=16, epochs=epochs, callbacks=list(used), verbose=0
    ).history


@pytest.mark.parametrize("saq", [False, True])
def test_scales_move_until_they_are_frozen(saq):
    model = quantized(saq)
    seen = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            values(scale_variables(model))
        )
    )
    start = values(scale_variables(model))
    kernel = ops.convert_to_numpy(model.trainable_variables[0])
    fit(model, 3, callbacks.ScaleFreezing(epoch=1), record)
    assert any(np.any(a != b) for a, b in zip(start, seen[0]))
    for before, after in zip(seen[0], seen[2]):
        np.testing.assert_array_equal(before, after)
    # Weights go on, and the next training has its scales free again.
    assert np.any(kernel != ops.convert_to_numpy(model.trainable_variables[0]))
    fit(model, 1)
    after = values(scale_variables(model))
    assert any(np.any(a != b) for a, b in zip(seen[2], after))


def test_freezing_needs_a_scale():
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="no trained scale"):
        fit(model, 1, callbacks.ScaleFreezing(0))


def test_statistics_are_the_mean_over_the_batches():
    model = quantized(norm=True)
    others = [v for v in model.variables if not v.name.startswith("moving_")]
    before = values(others)
    assert callbacks.reestimate_batch_norm(model, X, batch_size=16) == 1
    dense, norm = model.layers[1], model.layers[2]
    made = [ops.convert_to_numpy(dense(X[i : i + 16])) for i in (0, 16)]
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_mean),
        np.mean([m.mean(0) for m in made], 0),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_variance),
        np.mean([m.var(0) for m in made], 0),
        rtol=1e-3,
    )
    assert norm.momentum == 0.99
    for a, b in zip(before, values(others)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "data, message",
    [([], "at least one batch"), (X * np.nan, "not finite")],
)
def test_bad_data_leave_the_statistics(data, message):
    model = quantized(norm=True)
    before = values(model.variables)
    with pytest.raises(ValueError, match=message):
        callbacks.reestimate_batch_norm(model, data)
    for a, b in zip(before, values(model.variables)):
        np.testing.assert_array_equal(a, b)


def test_the_callback_measures_at_the_end():
    model = quantized(norm=True)
    fit(model, 1, callbacks.BatchNormReestimation((X, Y)))
    norm = model.layers[2]
    found = values((norm.moving_mean, norm.moving_variance))
    callbacks.reestimate_batch_norm(model, X)
    for a, b in zip(found, values((norm.moving_mean, norm.moving_variance))):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("saq", [False, True])
def test_training_stops_within_the_budget(saq):
    model = quantized(saq)
    bops = keras_saq.summary(model).bops
    assert fit(model, 3, callbacks.BudgetStopping(bops))["bops"] == [bops]
    assert len(fit(model, 2, callbacks.BudgetStopping(bops - 1))["bops"]) == 2


def test_training_stops_when_the_file_agrees():
    stop = callbacks.ParityStopping(X, top1_agreement=0.5)
    found = fit(quantized(), 3, stop)
    assert len(found["top1_agreement"]) == 1
    assert found["top1_agreement"][0] >= 0.5


def test_monitor_logs_bits_flips_and_scales(tmp_path):
    model = quantized()
    found = fit(model, 2, callbacks.QuantizationMonitor(log_dir=tmp_path))
    assert set(found) > {
        "code_flip_rate",
        "weight_bits",
        "weight_scale",
        "activation_scale",
    }
    assert found["weight_bits"] == [8.0, 8.0]
    assert max(found["code_flip_rate"]) > 0
    assert len(list(tmp_path.glob("events*"))) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: callbacks.ScaleFreezing(-1),
        lambda: callbacks.BudgetStopping(0),
        lambda: callbacks.ParityStopping(X, top1_agreement=2),
        lambda: callbacks.QuantizationMonitor(every=0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ValueError, match="Received"):
        make()


def test_a_small_last_batch_counts_by_its_samples():
    model = quantized(norm=True)
    x = np.concatenate([X, X[:1] * 9.0])
    callbacks.reestimate_batch_norm(model, x, batch_size=len(X))
    dense, norm = model.layers[1], model.layers[2]
    made = ops.convert_to_numpy(dense(x))
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_mean), made.mean(0), atol=1e-5
    )
    variance = made[:-1].var(0) * len(X) / len(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_variance), variance, rtol=1e-4
    )


def test_layers_of_one_name_are_monitored_apart():
    """Each attention has a "query"."""
    inputs = keras.Input((4, 6))
    x = inputs
    for _ in range(2):
        x = keras.layers.MultiHeadAttention(2, 3)(x, x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    data = np.random.default_rng(0).normal(size=(8, 4, 6)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the softmax stays in float
        q = keras_saq.quantize_model(model, "w4a8", calibration=data)
    monitor = callbacks.QuantizationMonitor()
    monitor.set_model(keras_saq.SAQModel(q))
    monitor.on_train_begin()
    found, details = monitor.measure()
    assert found["code_flip_rate"] == 0.0
    rates = [name for name in details if name.startswith("flip_rate/")]
    assert len(rates) == 2 * 4 + 1
