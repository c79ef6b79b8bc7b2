"""Few codes, all of them used, with a sign per channel."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.quantizers import LSQ

RANDOM = np.random.default_rng(0)
# Channels that lean to one side or to the other.
WEIGHT = (RANDOM.normal(size=(3, 3, 4, 6)) ** 3 + RANDOM.normal(size=6)).astype(
    "float32"
)


def made(**kwargs):
    quantizer = LSQ(channel_axes=(-1,), **kwargs)
    quantizer.initialize(WEIGHT)
    return quantizer


@pytest.mark.parametrize("bits", [2, 3])
def test_codes_and_error(bits):
    quantizer = made(num_bits=bits, oriented=True)
    sign = np.asarray(quantizer.orientation)
    assert set(sign) == {-1.0, 1.0}
    half = 2 ** (bits - 1)
    scale = np.asarray(quantizer.scale)
    # The formula, written anew.
    codes = np.clip(np.rint(sign * WEIGHT / scale), -half, half - 1) * sign
    np.testing.assert_array_equal(quantizer.codes(WEIGHT), codes)
    np.testing.assert_allclose(quantizer(WEIGHT), codes * scale, rtol=1e-5)
    assert quantizer.code_bits == bits + 1
    narrow = made(num_bits=bits, narrow_range=True)
    for channel in range(6):
        errors = [
            np.square(np.asarray(q(WEIGHT)) - WEIGHT)[..., channel].sum()
            for q in (quantizer, narrow)
        ]
        assert errors[0] <= 1.01 * errors[1]


def test_configuration_and_variables():
    quantizer = made(num_bits=2, oriented=True)
    again = LSQ.from_config(quantizer.get_config())
    again.build(WEIGHT.shape)
    again.set_weights(quantizer.get_weights())
    np.testing.assert_array_equal(again(WEIGHT), quantizer(WEIGHT))
    assert "oriented" not in LSQ(2).get_config()


def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(x)
    norm = layers.BatchNormalization(name="norm")
    x = layers.ReLU()(norm(x))
    norm.gamma.assign(np.linspace(-1, 1, 8))
    norm.moving_mean.assign(np.linspace(-0.1, 0.2, 8))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


X = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")


@pytest.mark.filterwarnings("ignore:Much of these kernels")
@pytest.mark.parametrize("bits", [2, 3])
def test_where_it_costs_no_byte(bits):
    q = keras_saq.quantize_model(network(), f"w{bits}a8", calibration=X)
    oriented = {
        layer.name
        for layer in q.layers
        if any(
            getattr(quantizer, "oriented", False)
            for quantizer in getattr(layer, "quantizers", ())
        )
    }
    # Packed 2-bit codes have no bit to spare.
    assert oriented == {"conv", "depthwise"} | (
        {"pointwise"} if bits == 3 else set()
    )


@pytest.mark.filterwarnings("ignore:Much of these kernels")
@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough"
)
def test_exported_exactly_and_reloaded(bits, tmp_path):
    q = keras_saq.quantize_model(network(), f"w{bits}a8", calibration=X)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, X).reference_exact
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(np.asarray(loaded(X)), np.asarray(q(X)))
    found = keras_saq.reconstruct(q, network(), X, steps=20, verbose=0)
    assert all(row.after <= row.before for row in found.blocks)
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, X).reference_exact
