"""Models of Keras's own int8 and int4 layers that hold our codes."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export.native import to_native

layers = keras.layers


def dense_network():
    inputs = keras.Input((12,))
    x = layers.Dense(17, activation="relu")(inputs)
    x = layers.Dense(9, activation="relu", use_bias=False)(x)
    return keras.Model(inputs, layers.Dense(5)(x))


def text_network():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8)(inputs)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 5), bias_axes="de")(x)
    x = layers.EinsumDense("abde,def->abf", (None, 7))(x)
    x = layers.EinsumDense("abf,gf->abg", (None, 6))(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def quantized(network, bits):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    if network is text_network:
        x = rng.integers(0, 20, (40, 6)).astype("int32")
    else:
        x = rng.normal(size=(40, 12)).astype("float32")
    policy = keras_saq.QuantizePolicy.preset(bits, first_last_bits=None)
    return keras_saq.quantize_model(network(), policy, calibration=x), x


def native_weights(layer):
    """Codes times scales of a native layer, in NumPy."""
    name = "embeddings" if isinstance(layer, layers.Embedding) else "kernel"
    codes = np.asarray(getattr(layer, f"_{name}"))
    scale = np.asarray(getattr(layer, f"{name}_scale"))
    if layer.dtype_policy.quantization_mode == "int4":
        low, high = codes << 4 >> 4, codes >> 4  # two's complement, signed
        codes = np.stack([low, high], axis=-1).reshape(*codes.shape[:-1], -1)
    return codes, scale


@pytest.mark.parametrize("bits", ["w8a8", "w4a8", "w3a8", "w2a8"])
def test_dense_layers_hold_the_learned_codes_and_scales(bits):
    q, x = quantized(dense_network, bits)
    native = to_native(q, "float")
    mode = "int8" if bits == "w8a8" else "int4"
    assert set(native.modes.values()) == {mode}
    for a, b in zip(q.layers, native.model.layers):
        assert type(b) in (layers.InputLayer, layers.Dense)
        if isinstance(b, layers.Dense):
            codes, scale = native_weights(b)
            expected = a.kernel_quantizer.codes(a.kernel)
            columns = expected.shape[1]
            np.testing.assert_array_equal(codes[:, :columns], expected)
            learned = np.asarray(a.kernel_quantizer.scale).ravel()
            np.testing.assert_allclose(1 / scale, learned, rtol=3e-7)
    expected = keras_saq.strip(q).predict(x, verbose=0)
    np.testing.assert_allclose(
        native.model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    "network, bits",
    [(dense_network, "w8a8"), (dense_network, "w4a4"), (text_network, "w4a8")],
)
def test_static_activations_are_within_a_step(network, bits):
    q, x = quantized(network, bits)
    native = to_native(q, verify=x)
    (row,) = native.parity
    # The roundings that are dropped (the pool's, the output's) are half a
    # step each; one that flips a code of 4 bits is sixteen steps of 8 bits.
    assert row.max_lsb <= (16 if bits == "w4a4" else 3) and row.mean_lsb < 2
    # Untrained, so that outputs are often equal or next to each other.
    assert row.top1_agreement > 0.8
    assert "top-1 agreement" in str(native)
    weights_alone = to_native(q, "float", verify=x)
    assert row.mean_lsb <= weights_alone.parity[0].mean_lsb + 0.05


def test_kinds_of_layers_and_modes():
    q, x = quantized(text_network, "w4a8")
    native = to_native(q, verify=x)
    modes = {type(a): [] for a in native.model.layers}
    for layer in native.model.layers:
        modes[type(layer)].append(layer.dtype_policy.quantization_mode)
    assert modes[layers.Embedding] == ["int4"]
    # Keras packs 4 bits only where the summed axes come first.
    assert modes[layers.EinsumDense] == ["int4", "int4", "int8"]
    assert modes[layers.Dense] == ["int4"]
    assert set(native.activations.values()) == {"float", "int8"}


@pytest.mark.parametrize("activations", ["static", "float"])
def test_saved_and_loaded(activations, tmp_path):
    q, x = quantized(dense_network, "w4a8")
    native = to_native(keras_saq.SAQModel(q), activations).model
    native.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), native.predict(x, verbose=0)
    )
    sizes = [v.dtype for v in loaded.variables]
    assert sizes.count("int8") == 3


def test_what_has_no_native_form_is_refused():
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(3, 3, name="conv")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
    q = keras_saq.quantize_model(model, "w4a8", calibration=images)
    with pytest.raises(ValueError, match="conv .Conv2D.: only Dense"):
        to_native(q)
    with pytest.raises(ValueError, match="no quantized layer"):
        to_native(model)
    with pytest.raises(ValueError, match="one of .*'static'.*'dynamic'"):
        to_native(q, activations="dynamic")
    q, _ = quantized(dense_network, "w4a8")
    policy = keras_saq.QuantizePolicy.preset("w4a8", weight_quantizer="lcq")
    x = np.zeros((4, 12), "float32") + np.arange(12)
    q = keras_saq.quantize_model(dense_network(), policy, calibration=x)
    with pytest.raises(ValueError, match="codebook"):
        to_native(q)
