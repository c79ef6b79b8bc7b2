"""Each layer type that can be quantized passes the tests of `Base`."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import PerturbationScope
from keras_saq.layers import Quantized
from tests.networks import assert_same_variables

layers = keras.layers


class Base:
    """Tests that every quantized layer inherits.

    `layer()` makes the layer under test; `shape` is its input.
    """

    shape = (6, 6, 4)
    bits = "w4a8"

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
            jit_compile=keras.backend.backend() != "tensorflow",
        )
        model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)

    def test_every_layer_is_still_what_it_was(self):
        model = self.model()
        quantized = keras_saq.quantize_model(model, self.bits)
        assert isinstance(quantized, type(model))
        assert any(isinstance(layer, Quantized) for layer in quantized.layers)
        for layer, copy in zip(model.layers, quantized.layers, strict=True):
            assert isinstance(copy, type(layer))
            assert copy.name == layer.name

    def test_eight_bits_are_close_to_float(self):
        model = self.model()
        x, _ = self.data()
        q = keras_saq.quantize_model(model, "w8a8", calibration=x)
        expected = model.predict(x, verbose=0)
        error = np.abs(q.predict(x, verbose=0) - expected).max()
        assert error < 0.06 * np.abs(expected).max()

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
            copy = keras.saving.deserialize_keras_object(config)
            assert type(copy) is type(layer)
            again = keras.saving.serialize_keras_object(copy)
            assert again["config"] == config["config"]

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


class TestConv2D(Base):
    def layer(self):
        return layers.Conv2D(5, 3, strides=2, padding="same")


class TestGroupedConv2D(Base):
    def layer(self):
        return layers.Conv2D(8, 3, groups=2, activation="relu")


class TestConv2DWithBatchNorm(Base):
    def layer(self):
        return layers.Conv2D(5, 3)

    def call(self, layer, x):
        x = layers.BatchNormalization()(layer(x))
        return layers.ReLU(6)(x)


class TestDepthwiseConv2D(Base):
    def layer(self):
        return layers.DepthwiseConv2D(3, depth_multiplier=2)


class TestDense(Base):
    def layer(self):
        return layers.Dense(7)


class TestBatchNormalization(Base):
    def layer(self):
        return layers.BatchNormalization()


class TestReLU(Base):
    def layer(self):
        return layers.ReLU()

    def call(self, layer, x):
        return layer(layers.Dense(4)(x))


class TestAdd(Base):
    def layer(self):
        return layers.Add()

    def call(self, layer, x):
        return layer([layers.Dense(4)(x), x])


class TestConcatenate(Base):
    def layer(self):
        return layers.Concatenate()

    def call(self, layer, x):
        return layer([layers.Dense(4)(x), x])


class TestAveragePooling2D(Base):
    def layer(self):
        return layers.AveragePooling2D(2)


class TestGlobalAveragePooling2D(Base):
    def layer(self):
        return layers.GlobalAveragePooling2D()


class TestMaxPooling2D(Base):
    def layer(self):
        return layers.MaxPooling2D()


class TestZeroPadding2D(Base):
    def layer(self):
        return layers.ZeroPadding2D()


class TestSoftmaxHead(Base):
    """An activation that stays in float behind quantized logits."""

    def layer(self):
        return layers.Dense(5, activation="softmax")


def dense_model():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(inputs))


def test_latent_weights_are_not_the_quantized_ones():
    model = dense_model()
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4) - 0.5)
    latent = q.layers[-1].kernel.numpy()
    np.testing.assert_array_equal(latent, model.layers[-1].kernel.numpy())
    layer = q.layers[-1]
    quantized = keras.ops.convert_to_numpy(layer.kernel_quantizer(latent))
    assert np.any(quantized != latent)


def test_a_perturbation_is_added_after_quantization_and_ends_with_its_scope():
    model = keras_saq.quantize_model(
        dense_model(), "w4a8", calibration=np.eye(4) - 0.5
    )
    layer = model.layers[-1]
    layer.output_quantizer.set_scale(1e-6)
    x = np.eye(4, dtype="float32")
    eps = np.full((4, 3), 0.25, "float32")
    clean = keras.ops.convert_to_numpy(layer.kernel_quantizer(layer.kernel))
    with PerturbationScope({id(layer.kernel): eps}):
        values = dict((id(v), t) for v, t in layer.overlaid_values())
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(values[id(layer.kernel)]), clean + eps
        )
    before = model(x)
    with pytest.raises(RuntimeError, match="inside"):
        with PerturbationScope({id(layer.kernel): eps}):
            raise RuntimeError("inside")
    np.testing.assert_array_equal(model(x), before)


def test_bias_is_on_the_grid_of_the_accumulator():
    model = dense_model()
    model.layers[-1].bias.assign([0.1234, -0.5, 3.0])
    q = keras_saq.quantize_model(model, "w2a8", calibration=np.eye(4) - 0.5)
    layer = q.layers[-1]
    step = layer.input_scale() * layer.kernel_quantizer.scale
    (_, kernel), (variable, bias) = layer.overlaid_values()
    assert variable is layer.bias
    codes = keras.ops.convert_to_numpy(bias / step)
    np.testing.assert_allclose(codes, np.rint(codes), rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), model.layers[-1].bias)


def test_batch_norm_rounds_its_offset_and_keeps_its_statistics():
    """Against NumPy: y = a * (z + g * round(b / g)), batch statistics."""
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(3, 3, use_bias=False)(inputs)
    model = keras.Model(inputs, layers.BatchNormalization(momentum=0.9)(x))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 5, 2)).astype("float32")
    q = keras_saq.quantize_model(model, "w2a8", calibration=x)
    conv, norm = q.layers[1:]
    norm.gamma.assign([0.5, -1.5, 1.0])
    norm.beta.assign([0.3, 0.7, -0.2])
    norm.output_quantizer.set_scale(1e-7)  # looked at before this quantizer
    z = keras.ops.convert_to_numpy(conv(x))
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))
    slope = norm.gamma.numpy() / np.sqrt(var + norm.epsilon)
    b = norm.beta.numpy() / slope - mean
    g = keras.ops.convert_to_numpy(
        conv.input_scale() * conv.kernel_quantizer.scale
    )
    expected = slope * (z + g * np.rint(b / g))
    from keras_saq.layers.batch_normalization import call_on_bias_grid

    y = keras.ops.convert_to_numpy(call_on_bias_grid(norm, z, training=True))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(
        norm.moving_variance.numpy(), 0.9 + 0.1 * var, rtol=1e-5
    )
    mean, var = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    slope = norm.gamma.numpy() / np.sqrt(var + norm.epsilon)
    b = norm.beta.numpy() / slope - mean
    expected = slope * (z + g * np.rint(b / g))
    y = keras.ops.convert_to_numpy(call_on_bias_grid(norm, z, training=False))
    np.testing.assert_allclose(y, expected, atol=1e-5)
