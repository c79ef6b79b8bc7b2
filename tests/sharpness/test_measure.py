"""Sharpness, curvature and landscapes, where they are known exactly."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.sharpness import SharpnessMonitor
from keras_saq.sharpness import loss_landscape
from keras_saq.sharpness import measure_sharpness
from keras_saq.sharpness import plot_loss_landscape
from keras_saq.sharpness.landscape import filter_normalized
from tests.sharpness.oracle import build

layers = keras.layers


def linear(seed=0):
    """A linear model, whose mean squared error is a quadratic."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((4,))
    layer = layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    w = rng.normal(size=(4, 1))
    layer.kernel.assign(w)
    x = rng.normal(size=(24, 4)).astype("float32")
    return model, w, x, rng.normal(size=(24, 1)).astype("float32")


def test_of_a_quadratic():
    model, w, x, y = linear()

    def loss(w):
        return np.mean((x @ w - y) ** 2)

    g = 2 * x.T @ (x @ w - y) / 24
    found = measure_sharpness(
        model, (x, y), rho=0.2, loss="mse", batch_size=10, tolerance=1e-6
    )
    np.testing.assert_allclose(found.loss, loss(w), rtol=1e-5)
    np.testing.assert_allclose(found.gradient_norm, np.linalg.norm(g), 1e-5)
    rise = loss(w + 0.2 * g / np.linalg.norm(g)) - loss(w)
    np.testing.assert_allclose(found.rise, rise, rtol=1e-4)
    top = np.linalg.eigvalsh(2 * x.T @ x / 24)[-1]
    np.testing.assert_allclose(found.eigenvalue, top, rtol=1e-3)
    assert found.converged and found.iterations > 1


def test_more_steps_climb_higher():
    model, _, x, y = linear()
    rises = [
        measure_sharpness(
            model, (x, y), rho=1.0, steps=n, eigenvalue=False, loss="mse"
        ).rise
        for n in (1, 10)
    ]
    assert rises[1] > rises[0] > 0


def test_of_a_quantized_model_is_around_its_quantized_weights():
    model, variables, x, y = build(0)
    model.compile("sgd", "mse", jit_compile=False)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    found = measure_sharpness(model, (x, y), rho=0.1, eigenvalue=False)
    expected = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    assert found.rise > 0 and found.eigenvalue is None
    np.testing.assert_allclose(found.rise, 0.1 * found.gradient_norm, rtol=0.5)
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value
        )
    batches = [(x[i : i + 4], y[i : i + 4]) for i in (0, 4)]
    again = measure_sharpness(model, batches, rho=0.1, eigenvalue=False)
    np.testing.assert_allclose(again.rise, found.rise, rtol=1e-3)


def test_the_middle_of_a_landscape_is_the_model():
    model, _, x, y = build(0)
    model.compile("sgd", "mse", jit_compile=False)
    loss = model.evaluate(x, y, verbose=0)
    line = loss_landscape(model, (x, y), points=5)
    plane = loss_landscape(model, (x, y), dimensions=2, points=5)
    assert line.losses.shape == (5,) and plane.losses.shape == (5, 5)
    np.testing.assert_allclose(line.losses[2], loss, rtol=1e-5)
    np.testing.assert_allclose(plane.losses[2, 2], loss, rtol=1e-5)
    # The first direction is the same one.
    np.testing.assert_allclose(plane.losses[:, 2], line.losses, rtol=1e-5)
    np.testing.assert_allclose(line.steps, [-0.5, -0.25, 0, 0.25, 0.5])
    assert plane.dimensions == 2


def test_filter_normalization():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 3, 2, 5)), rng.normal(size=(5,))]
    kernel, bias = filter_normalized(values, rng)
    for i in range(5):
        np.testing.assert_allclose(
            np.linalg.norm(kernel[..., i]), np.linalg.norm(values[0][..., i])
        )
    assert not bias.any()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_plots(tmp_path, dimensions):
    pytest.importorskip("matplotlib")
    model, _, x, y = build(0)
    model.compile("sgd", "mse", jit_compile=False)
    found = loss_landscape(model, (x, y), dimensions=dimensions, points=3)
    path = plot_loss_landscape(
        {"QAT": found, "SAQ": found}, tmp_path / "plot.png"
    )
    assert path.stat().st_size > 1000


def test_plots_of_different_dimensions(tmp_path):
    with pytest.raises(ValueError, match="same number of dimensions"):
        plot_loss_landscape({}, tmp_path / "plot.png")


@pytest.mark.parametrize(
    "options",
    [{"rho": 0}, {"rho": -1}, {"steps": 0}, {"perturb": "all"}],
)
def test_bad_arguments_of_measure(options):
    model, _, x, y = linear()
    with pytest.raises(ValueError, match="Received"):
        measure_sharpness(model, (x, y), loss="mse", **options)


def test_what_measuring_needs():
    model, _, x, y = linear()
    with pytest.raises(ValueError, match="no loss yet"):
        measure_sharpness(model, (x, y))
    with pytest.raises(ValueError, match="at least one sample"):
        measure_sharpness(model, (x[:0], y[:0]), loss="mse")


@pytest.mark.parametrize(
    "options", [{"points": 4}, {"dimensions": 3}, {"span": 0}]
)
def test_bad_arguments_of_landscapes(options):
    model, _, x, y = linear()
    with pytest.raises(ValueError, match="Received"):
        loss_landscape(model, (x, y), loss="mse", **options)


def _monitored(tmp_path=None, **kwargs):
    rng = np.random.default_rng(0)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = rng.normal(size=(16, 6)).astype("float32")
    y = rng.normal(size=(16, 3)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    model = keras_saq.SAQModel(q, rho=0.1)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    monitor = SharpnessMonitor((x, y), log_dir=tmp_path, **kwargs)
    history = model.fit(
        x, y, batch_size=8, epochs=4, callbacks=[monitor], verbose=0
    ).history
    return model, (x, y), history


def test_monitor(tmp_path):
    model, data, history = _monitored()
    assert len(history["sharpness"]) == 4
    last = measure_sharpness(model, data, rho=0.1, eigenvalue=False)
    np.testing.assert_allclose(history["sharpness"][-1], last.rise, rtol=1e-4)
    np.testing.assert_allclose(
        history["gradient_norm"][-1], last.gradient_norm, rtol=1e-4
    )
    rates = np.array(history["code_flip_rate"])
    assert (rates >= 0).all() and (rates <= 1).all() and rates.max() > 0
    assert min(history["weight_scale"] + history["activation_scale"]) > 0


def test_monitor_every_second_epoch():
    _, _, history = _monitored(every=2, rho=0.05)
    assert len(history["sharpness"]) == 2


def test_monitor_writes_for_tensorboard(tmp_path):
    tf = pytest.importorskip("tensorflow")
    _monitored(tmp_path, every=4)
    tags = set()
    for path in tmp_path.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags.update(value.tag for value in event.summary.value)
    assert {"sharpness", "gradient_norm", "code_flip_rate"} <= tags
    assert any(t.startswith("flip_rate/dense") for t in tags)
    assert any(t.startswith("scale/dense") for t in tags)


def test_bad_monitor():
    with pytest.raises(ValueError, match="every"):
        SharpnessMonitor((np.ones(1), np.ones(1)), every=0)
    model, _, x, y = build(0, rho=0.0)
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="radius of 0"):
        model.fit(x, y, callbacks=[SharpnessMonitor((x, y))], verbose=0)
