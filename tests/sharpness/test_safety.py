"""Bad batches, bad models, and what is refused."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.sharpness import strategies
from tests.sharpness.oracle import build

layers = keras.layers
BACKEND = keras.backend.backend()


def numpy(variables):
    return [np.copy(keras.ops.convert_to_numpy(v)) for v in variables]


def network_with_statistics(strategy="full"):
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(momentum=0.5)(inputs)
    x = layers.Dense(5, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    model = keras_saq.SAQModel(q, rho=0.1, strategy=strategy)
    model.compile(
        keras.optimizers.Adam(0.01), "mse", jit_compile=BACKEND == "jax"
    )
    return model, x, np.ones((8, 3), "float32")


# Set when `fit` or an epoch begins, not by steps.
OF_A_FIT = ("ascent", "late_first_full", "mesa_first")


@pytest.mark.parametrize("strategy", sorted(strategies.STRATEGIES))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_changes_nothing(strategy, bad):
    """Neither weights nor statistics nor what a strategy or Adam keeps."""
    model, x, y = network_with_statistics(strategy)
    model.fit(x, y, batch_size=8, verbose=0)
    kept = [*model.trainable_variables, *model.optimizer.variables]
    kept += [
        v
        for v in model.non_trainable_variables
        if v.dtype == "float32" and v.name not in OF_A_FIT
    ]
    before = numpy(kept)
    poor = y.copy()
    poor[3, 1] = bad
    history = model.fit(x, poor, batch_size=8, verbose=0).history
    assert not np.isfinite(history["loss"]).all()
    for variable, old in zip(kept, before, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), old, err_msg=variable.path
        )
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(v).all() for v in numpy(model.variables))


def test_inputs_that_are_not_finite_never_reach_the_weights():
    model, x, y = network_with_statistics()
    model.fit(x, y, batch_size=8, verbose=0)
    for bad in (np.nan, np.inf):
        poor = x.copy()
        poor[0, 0] = bad
        model.fit(poor, y, batch_size=8, verbose=0)
    assert all(np.isfinite(v).all() for v in numpy(model.variables))
    assert np.isfinite(model.predict(x, verbose=0)).all()


@pytest.mark.parametrize("strategy", sorted(strategies.STRATEGIES))
def test_a_zero_gradient_changes_nothing(strategy):
    """The loss is at its minimum: no direction, no perturbation, no NaN."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    for variable in model.variables:
        variable.assign(keras.ops.zeros(variable.shape))
    model = keras_saq.SAQModel(model, rho=0.5, strategy=strategy)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False
    )
    model.fit(
        np.ones((4, 3)), np.zeros((4, 2)), batch_size=4, epochs=3, verbose=0
    )
    for value in numpy(model.trainable_variables):
        np.testing.assert_array_equal(value, np.zeros_like(value))


def test_an_empty_dataset():
    model, x, y = network_with_statistics()

    class Empty(keras.utils.PyDataset):
        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError(index)

    for data in ((x[:0], y[:0]), ([x[:0]], y[:0]), (Empty(),)):
        with pytest.raises(ValueError, match="at least one batch"):
            model.fit(*data, verbose=0)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4).take(0)
        with pytest.raises(ValueError, match="at least one batch"):
            model.fit(data, verbose=0)


def test_nothing_of_the_chosen_kind():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(inputs))
    model = keras_saq.SAQModel(model, perturb="biases")
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="no trainable variable of the kinds"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)


def test_a_variable_without_gradient():
    """A layer that the loss does not depend on: no perturbation, no update."""
    inputs = keras.Input((3,))
    used = layers.Dense(2)(inputs)
    unused = layers.Dense(4)
    model = keras.Model(inputs, [used, unused(inputs)])
    model = keras_saq.SAQModel(model, rho=0.1)
    model.compile("sgd", ["mse", None], jit_compile=False)
    before = numpy(unused.variables)
    x, y = np.ones((4, 3)), np.ones((4, 2))
    if BACKEND != "jax":  # Keras tells of it, as in a plain step
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            model.fit(x, [y, None], verbose=0)
    else:
        model.fit(x, [y, None], verbose=0)
    for old, new in zip(before, numpy(unused.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def _dropout_network(outputs=1):
    class Activity(layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(x**2))
            return x

    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", kernel_regularizer="l2")(inputs)
    x = Activity()(layers.Dropout(0.5, seed=3)(x))
    x = layers.BatchNormalization()(x)
    made = [layers.Dense(3, name=f"out{i}")(x) for i in range(outputs)]
    model = keras.Model(inputs, made if outputs > 1 else made[0])
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_second_pass_leaves_no_trace(outputs):
    """Seeds, statistics, metrics and added losses as after a plain step."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype("float32")
    y = [rng.normal(size=(8, 3)).astype("float32") for _ in range(outputs)]
    y = y if outputs > 1 else y[0]
    plain = _dropout_network(outputs)
    saq = keras_saq.SAQModel(_dropout_network(outputs), rho=0.5)
    logs = []
    for model in (plain, saq):
        model.compile(
            keras.optimizers.SGD(0.01),
            "mse",
            metrics=[["mae"]] * outputs if outputs > 1 else ["mae"],
            jit_compile=False,
        )
        given = {} if model is plain else {"reestimate_batch_norm": False}
        history = model.fit(
            x, y, batch_size=8, shuffle=False, verbose=0, **given
        )
        logs.append(history.history)
    assert set(logs[0]) == set(logs[1])
    for name in logs[0]:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-5)
    pairs = zip(
        plain.non_trainable_variables,
        saq.model.non_trainable_variables,
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(*numpy((a, b)), rtol=1e-5, err_msg=a.path)
    moved = [
        np.abs(a - b).max()
        for a, b in zip(
            numpy(plain.trainable_variables),
            numpy(saq.model.trainable_variables),
        )
    ]
    assert max(moved) > 1e-4


def test_rho_zero_shares_the_dropout_masks():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype("float32")
    y = rng.normal(size=(8, 3)).astype("float32")
    plain = _dropout_network()
    saq = keras_saq.SAQModel(_dropout_network(), rho=0.0)
    for model in (plain, saq):
        model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
        given = {} if model is plain else {"reestimate_batch_norm": False}
        model.fit(
            x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **given
        )
    for a, b in zip(numpy(plain.variables), numpy(saq.model.variables)):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_a_cached_read_beside_a_fresh_one_is_refused():
    """The kernel has a gradient, from outside; the cached read is stale."""
    import tensorflow as tf

    class Twice(layers.Dense):
        @tf.function
        def _cached(self, x):
            return tf.matmul(x, keras.ops.convert_to_tensor(self.kernel))

        def call(self, x):
            return self._cached(x) + keras.ops.matmul(x, self.kernel)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Twice(3, use_bias=False)(inputs))
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4) - 0.5)
    saq = keras_saq.SAQModel(q, rho=0.1)
    saq.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="was read"):
        saq.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_a_cached_read_of_a_float_weight_is_refused():
    """Not only quantized weights: SAM on a float layer."""
    import tensorflow as tf

    class Cached(layers.Dense):
        @tf.function
        def call(self, x):
            return tf.matmul(x, keras.ops.convert_to_tensor(self.kernel))

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Cached(3, use_bias=False)(inputs))
    saq = keras_saq.SAQModel(model, rho=0.1)
    saq.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="was read"):
        saq.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="exact on other backends")
def test_remat_is_refused_on_tensorflow():
    inputs = keras.Input((4,))
    with keras.RematScope("full"):
        layer = layers.Dense(3)
    model = keras_saq.SAQModel(keras.Model(inputs, layer(inputs)), rho=0.1)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="RematScope"):
        model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)


@pytest.mark.skipif(BACKEND != "jax", reason="refused on TensorFlow")
def test_remat_is_exact_on_jax():
    models = []
    for mode in (None, "full"):
        inputs = keras.Input((4,))
        with keras.RematScope(mode):
            layer = layers.Dense(3)
        outputs = layer(inputs)
        layer.kernel.assign(np.linspace(-1, 1, 12).reshape(4, 3))
        model = keras_saq.SAQModel(keras.Model(inputs, outputs), rho=0.5)
        model.compile("sgd", "mse")
        with keras.RematScope(mode):
            model.fit(np.eye(4), np.ones((4, 3)), verbose=0)
        models.append(numpy(model.variables))
    for a, b in zip(*models):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_teacher_of_another_shape():
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, layers.Dense(4)(inputs))
    model, _, x, target = build(0, distillation=keras_saq.Distillation(teacher))
    model.compile("sgd", "mse", jit_compile=False)
    with pytest.raises(ValueError, match="what the student predicts"):
        model.fit(x, target, verbose=0)
