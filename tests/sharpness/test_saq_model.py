"""`SAQModel` as a Keras model."""

import keras
import numpy as np
import pytest

import keras_saq
from tests import networks
from tests.networks import assert_same_variables
from tests.networks import compile_model
from tests.networks import fit
from tests.networks import images
from tests.networks import numpy_variables

layers = keras.layers


def quantized(bits="w2a4", **kwargs):
    x, _ = images()
    keras.utils.set_random_seed(0)
    model = networks.residual_network(**kwargs)
    return keras_saq.quantize_model(model, bits, calibration=x)


def test_rho_zero_is_plain_qat():
    """Dropout masks, batch statistics and metrics included."""
    plain = compile_model(quantized(), keras.optimizers.SGD(0.05))
    saq = compile_model(
        keras_saq.SAQModel(quantized(), rho=0.0), keras.optimizers.SGD(0.05)
    )
    x, y = images()
    histories = [
        m.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
        for m in (plain, saq)
    ]
    for a, b in zip(numpy_variables(plain), numpy_variables(saq.model)):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for name in histories[0]:
        np.testing.assert_allclose(*(h[name] for h in histories), atol=1e-6)


def test_statistics_seeds_and_metrics_are_those_of_one_step():
    """Only the trainable variables differ from a plain step."""
    plain, inner = quantized(), quantized()
    saq = keras_saq.SAQModel(inner, rho=0.5)
    x, y = images()
    logs = []
    for model in (plain, saq):
        compile_model(model, keras.optimizers.SGD(0.05))
        history = model.fit(
            x,
            y,
            batch_size=64,
            shuffle=False,
            verbose=0,
            reestimate_batch_norm=False,  # of weights that differ
        )
        logs.append(history.history)
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-5)
    state = zip(plain.non_trainable_variables, inner.non_trainable_variables)
    for a, b in state:
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    moved = [
        np.abs(a.numpy() - b.numpy()).max()
        for a, b in zip(plain.trainable_variables, inner.trainable_variables)
    ]
    assert max(moved) > 1e-4


@pytest.mark.parametrize("bits", ["w4a8", "w2a2"])
def test_it_learns(bits):
    x, y = images(256)
    model = keras_saq.SAQModel(quantized(bits), rho=0.05)
    compile_model(model, keras.optimizers.Adam(5e-3))
    model.fit(x, y, batch_size=32, epochs=12, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.6


def test_keras_features_of_fit():
    """Sample weights, regularisers, callbacks and validation data."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, kernel_regularizer="l2")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(beta_regularizer="l2")(x))
    x = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    images_, labels = images()
    q = keras_saq.quantize_model(
        keras.Model(inputs, x), "w4a8", calibration=images_
    )
    model = compile_model(keras_saq.SAQModel(q, rho=0.1))
    epochs = []
    history = model.fit(
        images_,
        labels,
        sample_weight=np.linspace(0, 1, 64, dtype="float32"),
        validation_data=(images_, labels),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: epochs.append(logs)
            )
        ],
        epochs=2,
        verbose=0,
    ).history
    assert set(history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert len(epochs) == 2
    assert np.isfinite(history["val_loss"]).all()


def test_sample_weight_zero_leaves_only_the_regularizer():
    """With every weight 0, SAQ's step is plain decay of the regularised."""
    inputs = keras.Input((4,))
    kernel = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    q = keras_saq.quantize_model(
        keras.Model(inputs, kernel(inputs)),
        "w4a8",
        calibration=np.eye(4) - 0.5,
    )
    model = keras_saq.SAQModel(q, rho=0.1)
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
    before = np.copy(q.layers[-1].kernel.numpy())
    x, y = np.ones((8, 4)), np.ones((8, 3))
    model.fit(x, y, sample_weight=np.zeros(8), batch_size=8, verbose=0)
    np.testing.assert_allclose(
        q.layers[-1].kernel.numpy(), before - 0.2 * before, atol=1e-6
    )


def test_several_outputs_and_losses():
    inputs = keras.Input((4,))
    x = layers.Dense(8, activation="relu")(inputs)
    outputs = {"a": layers.Dense(2)(x), "b": layers.Dense(3)(x)}
    model = keras.Model(inputs, outputs)
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4))
    model = keras_saq.SAQModel(q, rho=0.1)
    model.compile("sgd", {"a": "mse", "b": "mae"}, jit_compile=False)
    y = {"a": np.ones((8, 2)), "b": np.ones((8, 3))}
    history = model.fit(np.ones((8, 4)), y, verbose=0).history
    np.testing.assert_allclose(
        history["loss"],
        np.add(history["a_loss"], history["b_loss"]),
        rtol=1e-5,
    )


def test_a_step_that_raises_leaves_clean_weights():
    """A loss that fails in the second pass, traced or not."""
    calls = []

    def loss(y_true, y_pred):
        calls.append(None)
        if len(calls) == 2:
            raise ZeroDivisionError("second pass")
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)

    x, _ = images()
    q = quantized()
    before = numpy_variables(q)
    expected = q.predict(x, verbose=0)
    model = keras_saq.SAQModel(q, rho=10.0)
    model.compile("sgd", loss, run_eagerly=True)
    with pytest.raises(Exception, match="second pass"):
        model.fit(x, np.zeros((64, 10)), batch_size=64, verbose=0)
    assert len(calls) == 2
    for variable, old in zip(q.variables, before, strict=True):
        if variable.trainable:
            np.testing.assert_array_equal(variable.numpy(), old)
    # Statistics moved in the first pass; put them back to compare outputs.
    for variable, old in zip(q.variables, before):
        variable.assign(old)
    np.testing.assert_array_equal(q.predict(x, verbose=0), expected)


def test_save_load_and_one_more_step(tmp_path):
    model = fit(keras_saq.SAQModel(quantized(), rho=0.2))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(loaded, keras_saq.SAQModel) and loaded.rho == 0.2
    for a, b in zip(model.model.layers, loaded.model.layers):
        if isinstance(a, layers.Dropout):  # Keras does not save its masks
            b.seed_generator.state.assign(a.seed_generator.state.numpy())
    assert_same_variables(model, loaded)
    x, y = images()
    for m in (model, loaded):
        m.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert_same_variables(model, loaded)


def test_weight_files_are_interchangeable(tmp_path):
    inner = quantized()
    model = keras_saq.SAQModel(inner)
    model.save_weights(tmp_path / "m.weights.h5")
    other = keras_saq.quantize_model(networks.residual_network(), "w2a4")
    other.load_weights(tmp_path / "m.weights.h5")
    for a, b in zip(inner.trainable_variables, other.trainable_variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    keras_saq.SAQModel(other).load_weights(tmp_path / "m.weights.h5")


def test_it_delegates_to_the_model_inside():
    inner = quantized()
    model = keras_saq.SAQModel(inner)
    assert model.inputs is inner.inputs and model.outputs is inner.outputs
    assert model.get_layer("logits") is inner.get_layer("logits")
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    assert "logits" in "\n".join(lines)


def test_a_float_model_is_trained_with_sam():
    x, y = images()
    model = keras_saq.SAQModel(networks.sequential_network(), rho=0.05)
    compile_model(model)
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_mixed_float16_scales_its_loss():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras_saq.SAQModel(quantized(), rho=0.05)
        x, y = images()
        compile_model(model)
        history = model.fit(x, y, epochs=2, verbose=0).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()


def test_frozen_layers_stay():
    q = quantized()
    q.get_layer("conv2d").trainable = False
    before = np.copy(q.get_layer("conv2d").kernel.numpy())
    fit(keras_saq.SAQModel(q, rho=0.1), epochs=1)
    after = q.get_layer("conv2d").kernel.numpy()
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf"), "big"])
def test_bad_rho(rho):
    with pytest.raises(ValueError, match="rho"):
        keras_saq.SAQModel(networks.sequential_network(), rho=rho)


def test_bad_model():
    with pytest.raises(ValueError, match="must be a `keras.Model`"):
        keras_saq.SAQModel("model.keras")


def test_nothing_trainable():
    q = quantized()
    q.trainable = False
    model = compile_model(keras_saq.SAQModel(q, rho=0.1))
    x, y = images()
    with pytest.raises(ValueError, match="no trainable weights"):
        model.fit(x, y, verbose=0)


def test_a_cached_inner_function_is_refused():
    """It would run the second pass without the perturbation."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    class Cached(layers.Dense):
        @tf.function
        def _matmul(self, x):
            return tf.matmul(x, keras.ops.convert_to_tensor(self.kernel))

        def call(self, x):
            return self._matmul(x)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Cached(3, use_bias=False)(inputs))
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4) - 0.5)
    saq = keras_saq.SAQModel(q, rho=0.1)
    saq.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="did not reach the second pass"):
        saq.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
