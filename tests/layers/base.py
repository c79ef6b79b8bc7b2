"""The tests that every quantized layer inherits."""

import copy

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import Quantized
from keras_saq.quantizers import Quantizer
from tests.networks import assert_same_variables

layers = keras.layers


class Base:
    """Tests that every quantized layer inherits.

    `layer()` makes the layer under test; `shape` is its input.
    """

    shape = (6, 6, 4)
    bits = "w4a8"
    # Of the outputs' largest value: what eight bits may be off.
    tolerance = 0.06

    def layer(self):
        raise NotImplementedError

    def model(self, dtype=None):
        inputs = keras.Input(self.shape)
        # A signed and a non-negative tensor meet every layer.
        x = layers.Dense(self.shape[-1], activation="relu")(inputs)
        x = self.call(self.layer(), x)
        x = layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(3)(x))

    def call(self, layer, x):
        return layer(x)

    def data(self):
        rng = np.random.default_rng(1)
        x = rng.normal(size=(16, *self.shape)).astype("float32")
        return x, rng.normal(size=(16, 3)).astype("float32")

    def quantized(self, bits=None):
        x, _ = self.data()
        return keras_saq.quantize_model(
            self.model(), bits or self.bits, calibration=x
        )

    def fit(self, model, learning_rate=0.01):
        x, y = self.data()
        model.compile(
            keras.optimizers.SGD(learning_rate),
            "mse",
            jit_compile=keras.backend.backend() == "jax",
        )
        model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)

    def test_every_layer_is_still_what_it_was(self):
        model = self.model()
        quantized = keras_saq.quantize_model(model, self.bits)
        assert isinstance(quantized, type(model))
        assert any(isinstance(layer, Quantized) for layer in quantized.layers)
        for layer, made in zip(model.layers, quantized.layers, strict=True):
            assert isinstance(made, type(layer))
            assert made.name == layer.name

    def test_eight_bits_are_close_to_float(self):
        model = self.model()
        x, _ = self.data()
        q = keras_saq.quantize_model(model, "w8a8", calibration=x)
        expected = model.predict(x, verbose=0)
        error = np.abs(q.predict(x, verbose=0) - expected).max()
        assert error < self.tolerance * np.abs(expected).max()

    @pytest.mark.parametrize("bits", ["w4a8", "w2a4"])
    def test_one_step_moves_every_scale_and_weight(self, bits):
        model = self.quantized(bits)
        before = [np.copy(v.numpy()) for v in model.trainable_variables]
        self.fit(model, learning_rate=1.0)
        for variable, old in zip(model.trainable_variables, before):
            new = keras.ops.convert_to_numpy(variable)
            assert np.isfinite(new).all()
            assert np.any(new != old), variable.path

    def test_save_and_load_are_exact_and_train_on_the_same(self, tmp_path):
        model = self.quantized()
        self.fit(model)
        path = tmp_path / "m.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        assert type(loaded) is type(model)
        assert_same_variables(model, loaded)
        x, y = self.data()
        for m in (model, loaded):
            m.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        assert_same_variables(model, loaded)

    def test_weights_file(self, tmp_path):
        model = self.quantized()
        self.fit(model)
        path = tmp_path / "m.weights.h5"
        model.save_weights(path)
        other = keras_saq.quantize_model(self.model(), self.bits)
        other.load_weights(path)
        assert_same_variables(model, other)
        x, _ = self.data()
        np.testing.assert_array_equal(
            model.predict(x, verbose=0), other.predict(x, verbose=0)
        )

    def test_config_round_trip(self):
        for layer in self.quantized().layers:
            config = keras.saving.serialize_keras_object(layer)
            # Wrappers of Keras take the dict apart that they are given.
            given = copy.deepcopy(config)
            made = keras.saving.deserialize_keras_object(given)
            assert type(made) is type(layer)
            again = keras.saving.serialize_keras_object(made)
            assert settings(again["config"]) == settings(config["config"])

    @pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
    def test_mixed_precision(self, dtype):
        previous = keras.config.dtype_policy()
        keras.config.set_dtype_policy(dtype)
        try:
            model = self.quantized()
            self.fit(model)
            x, _ = self.data()
            outputs = model.predict(x, verbose=0)
        finally:
            keras.config.set_dtype_policy(previous)
        assert np.isfinite(outputs.astype("float32")).all()
        for layer in model.layers:
            if isinstance(layer, Quantized):
                for quantizer in layer.quantizers:
                    assert quantizer.log_scale.dtype == "float32"

    def test_slices_clones_and_deep_copies_keep_their_quantizers(self):
        model = self.quantized()
        x, _ = self.data()
        tested = model.layers[-3].output  # before Flatten and the last Dense
        part = keras.Model(model.input, tested)
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        expected = model.predict(x, verbose=0)
        for copied in (clone, copy.deepcopy(model)):
            assert num_quantizers(copied) == num_quantizers(model)
            np.testing.assert_array_equal(
                copied.predict(x, verbose=0), expected
            )
        assert 0 < num_quantizers(part) < num_quantizers(model)
        assert keras.ops.shape(part(x[:2]))[1:] == tested.shape[1:]

    def test_strip_gives_the_float_layers_back(self):
        x, _ = self.data()
        q = self.quantized()
        stripped = keras_saq.strip(q)
        assert not any(
            isinstance(layer, (Quantized, Quantizer))
            for layer in stripped._flatten_layers()
        )
        for layer, own in zip(
            self.model().layers, stripped.layers, strict=True
        ):
            assert type(layer) is type(own)
        expected = q.predict(x, verbose=0)
        error = np.abs(stripped.predict(x, verbose=0) - expected).max()
        assert error < self.tolerance * np.abs(expected).max()
        again = keras_saq.quantize_model(stripped, "w8a8", calibration=x)
        assert np.isfinite(again.predict(x, verbose=0)).all()


def settings(config):
    """A configuration without the shapes that layers were built with."""
    if isinstance(config, dict):
        return {
            key: settings(value)
            for key, value in config.items()
            if key != "build_config"
        }
    if isinstance(config, list):
        return [settings(value) for value in config]
    return config


def num_quantizers(model):
    return sum(
        len(layer.quantizers)
        for layer in model._flatten_layers()
        if isinstance(layer, Quantized)
    )
