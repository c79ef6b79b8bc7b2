"""The batch norm of training against Keras's own, on every backend's path."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_saq.layers import quantize_layer
from keras_saq.policy import QuantizeConfig

IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
SHAPES = {2: (16, 3), 3: (8, 5, 3), 4: (4, 5, 6, 3), 5: (2, 3, 4, 5, 3)}
CASES = {
    "plain": {},
    "no gamma": {"scale": False},
    "no beta": {"center": False},
    "neither": {"scale": False, "center": False},
    # These are not what TensorFlow's kernel computes.
    "channels first": {"axis": 1},
    "small epsilon": {"epsilon": 1e-6},
    "renorm": {"renorm": True},
}
KERNEL_CASES = ("plain", "no gamma", "no beta", "neither")


def pair(settings, x):
    """A float layer and its quantized copy, in the same state."""
    float_layer = layers.BatchNormalization(momentum=0.9, **settings)
    quantized = quantize_layer(float_layer, QuantizeConfig())
    rng = np.random.default_rng(1)
    for layer in (float_layer, quantized):
        layer.build(x.shape)
    for a, b in zip(float_layer.variables, quantized.variables, strict=True):
        value = rng.uniform(0.5, 2.0, a.shape)
        a.assign(value)
        b.assign(value)
    return float_layer, quantized


def train(layer, x, y):
    """Loss history, output and variables after two steps of training."""
    # Something to train where the layer has nothing.
    last = layers.Dense(3, kernel_initializer="identity")
    model = keras.Sequential([layer, last])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    history = model.fit(x, y, batch_size=len(x), epochs=2, verbose=0)
    variables = [keras.ops.convert_to_numpy(v) for v in model.variables]
    return [history.history["loss"], *variables]


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("case", CASES)
def test_trains_as_keras_does(case, rank):
    settings = CASES[case]
    if case == "renorm" and not hasattr(layers.BatchNormalization(), "renorm"):
        pytest.skip("This Keras has no batch renormalization.")
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, SHAPES[rank]).astype("float32")
    y = rng.normal(size=SHAPES[rank]).astype("float32")
    results = [train(layer, x, y) for layer in pair(settings, x)]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not IS_TENSORFLOW, reason="a kernel of TensorFlow")
class TestKernel:
    @pytest.mark.parametrize("case", CASES)
    def test_is_used_where_it_computes_the_same(self, case, monkeypatch):
        from keras_saq.layers import tensorflow_batch_norm as kernel

        if case == "renorm":
            pytest.skip("Renormalization is refused before.")
        calls = []
        monkeypatch.setattr(
            kernel,
            "normalize",
            lambda *args, f=kernel.normalize: calls.append(1) or f(*args),
        )
        x = np.random.default_rng(0).normal(size=(4, 5, 6, 3))
        _, layer = pair(CASES[case], x)
        layer(x.astype("float32"), training=True)
        assert bool(calls) is (case in KERNEL_CASES)
        calls.clear()
        layer(x.astype("float32"), training=False)
        assert not calls

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_gradients_are_those_of_the_moments(self, jit_compile):
        """First and second ones, against TensorFlow's differentiation."""
        import tensorflow as tf

        from keras_saq.layers import tensorflow_batch_norm as kernel

        rng = np.random.default_rng(0)
        x = tf.constant(rng.normal(1.0, 2.0, (6, 4, 3)), tf.float32)
        gamma = tf.constant([0.5, -1.5, 2.0])
        beta = tf.constant([0.1, 0.2, 0.3])
        weights = tf.constant(rng.normal(size=x.shape), tf.float32)

        def composed(x, gamma, beta):
            mean, variance = tf.nn.moments(x, [0, 1])
            return tf.nn.batch_normalization(
                x, mean, variance, beta, gamma, 1e-3
            )

        def fused(x, gamma, beta):
            return kernel.normalize(x, gamma, beta, 1e-3)[0]

        @tf.function(jit_compile=jit_compile)
        def gradients(function):
            points = [x, gamma, beta]
            with tf.GradientTape() as outer:
                outer.watch(points)
                with tf.GradientTape() as inner:
                    inner.watch(points)
                    y = function(*points)
                    loss = tf.reduce_sum(weights * y**2)
                first = inner.gradient(loss, points)
                slope = sum(tf.reduce_sum(g**2) for g in first)
            return [y, *first, *outer.gradient(slope, points)]

        for expected, found in zip(
            gradients(composed), gradients(fused), strict=True
        ):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                found / scale, expected / scale, atol=1e-4
            )

    def test_half_precision_is_computed_in_float32(self):
        policy = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy("mixed_float16")
        try:
            x = np.random.default_rng(0).normal(300.0, 2.0, (64, 3))
            float_layer, quantized = pair({}, x)
            found = quantized(x, training=True)
            assert found.dtype == "float16"
            expected = float_layer(x, training=True)
        finally:
            keras.mixed_precision.set_dtype_policy(policy)
        np.testing.assert_allclose(found, expected, atol=2e-3)
