"""The function stays; channels become even."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.reconstruction import equalize

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")


def uneven():
    """Channels whose ranges differ by a factor of a thousand."""
    keras.utils.set_random_seed(0)
    spread = np.float32(np.logspace(-1.5, 1.5, 8))
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    norm = layers.BatchNormalization(name="norm")
    x = layers.ReLU()(norm(x))
    x = layers.MaxPooling2D()(layers.ZeroPadding2D()(x))
    second = layers.Conv2D(8, 3, activation="relu", name="second")
    x = second(x)
    depthwise = layers.DepthwiseConv2D(1, depth_multiplier=2, name="depthwise")
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(depthwise(x)))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    norm.gamma.assign(spread)
    norm.beta.assign(0.3 * spread)
    second.kernel.assign(np.array(second.kernel) / spread[:, None])
    second.bias.assign(np.linspace(-0.1, 0.3, 8))
    depthwise.bias.assign(np.linspace(-0.1, 0.3, 16))
    return model


def distance(model, q):
    return float(np.square(np.asarray(model(X)) - np.asarray(q(X))).mean())


def test_the_function_stays():
    model = uneven()
    even, pairs = equalize(model, X)
    assert pairs == [
        ("norm", "second"),
        ("second", "depthwise"),
        ("depthwise", "head"),
    ]
    expected = np.asarray(model(X))
    np.testing.assert_allclose(
        np.asarray(even(X)), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert not np.allclose(even.get_layer("norm").gamma, 1)
    # In NumPy: gamma over the factor, the kernel times it.
    factor = np.asarray(model.get_layer("norm").gamma) / np.asarray(
        even.get_layer("norm").gamma
    )
    np.testing.assert_allclose(
        even.get_layer("norm").beta,
        np.asarray(model.get_layer("norm").beta) / factor,
        rtol=1e-5,
    )


@pytest.mark.filterwarnings("ignore:The quantized model is far")
@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_what_is_even_is_quantized_better():
    model = uneven()
    even, _ = equalize(model, X)
    errors = [
        distance(model, keras_saq.quantize_model(m, "w4a8", calibration=X))
        for m in (model, even)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("between", ["relu6", "tanh", "branch", "groups"])
def test_what_is_not_homogeneous_or_not_alone_is_left(between):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, name="one")(inputs)
    y = layers.ReLU(6.0)(x) if between == "relu6" else x
    y = layers.Activation("tanh")(y) if between == "tanh" else y
    groups = 2 if between == "groups" else 1
    z = layers.Conv2D(4, 1, groups=groups, name="two")(y)
    z = layers.Add()([z, x]) if between == "branch" else z
    model = keras.Model(inputs, z)
    x = RANDOM.normal(size=(4, 8, 8, 4)).astype("float32")
    even, pairs = equalize(model, x)
    assert pairs == []
    np.testing.assert_array_equal(even(x), model(x))


def test_other_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Functional and Sequential"):
        equalize(Own(), X)
