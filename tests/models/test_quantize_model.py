import copy

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import Quantized
from tests import networks
from tests.networks import assert_same_variables
from tests.networks import fit
from tests.networks import images
from tests.networks import numpy_variables

layers = keras.layers


def quantized(name="residual", bits="w4a8"):
    x, _ = images()
    model = networks.NETWORKS[name]()
    return keras_saq.quantize_model(model, bits, calibration=x)


def bits_of(model):
    """Name -> (weight bits, input bits, output bits)."""

    def num_bits(quantizer):
        return quantizer and quantizer.num_bits

    return {
        layer.name: (
            *(q.num_bits for q in layer.quantize_config.weights.values()),
            num_bits(layer.input_quantizer),
            num_bits(layer.output_quantizer),
        )
        for layer in model._flatten_layers()
        if isinstance(layer, Quantized)
    }


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_original_is_untouched(name):
    model = fit(networks.NETWORKS[name](), epochs=1)
    before = numpy_variables(model)
    config = model.get_config()
    types = [type(layer) for layer in model._flatten_layers()]
    x, _ = images()
    expected = model.predict(x, verbose=0)
    fit(keras_saq.quantize_model(model, "w2a4", calibration=x), epochs=1)
    for a, b in zip(before, numpy_variables(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.get_config() == config
    assert [type(layer) for layer in model._flatten_layers()] == types
    assert model.compiled
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_result_is_what_the_model_was(name):
    model = networks.NETWORKS[name]()
    q = keras_saq.quantize_model(model, "w4a8")
    assert isinstance(q, type(model))
    assert q.name == model.name
    assert not q.compiled
    assert [t.shape for t in q.outputs] == [t.shape for t in model.outputs]
    assert [t.shape for t in q.inputs] == [t.shape for t in model.inputs]
    assert [a.name for a in q.layers] == [a.name for a in model.layers]
    lines = []
    q.summary(print_fn=lambda line, **_: lines.append(line))
    assert "Quantized" in "\n".join(lines)


def test_one_quantizer_per_tensor():
    """Of the group Conv -> BN -> ReLU only the last has an output quantizer."""
    bits = bits_of(quantized())
    assert bits == {
        "conv2d": (8, 8, None),
        "batch_normalization": (None, None),
        "re_lu": (None, 8),
        "depthwise_conv2d": (4, None, None),
        "batch_normalization_1": (None, None),
        "re_lu_1": (None, 8),
        "conv2d_1": (4, None, None),
        "batch_normalization_2": (None, 8),
        "re_lu_2": (None, 8),
        "conv2d_2": (4, None, None),
        "conv2d_3": (4, None, None),
        "concatenate": (None, 8),
        "batch_normalization_3": (None, None),
        "re_lu_3": (None, 8),
        "conv2d_4": (4, None, 8),
        "average_pooling2d": (None, 8),
        "dense": (4, None, 8),
        "logits": (8, None, 8),
    }


def test_low_bit_consumers_requantize_a_tensor_that_others_want_wider():
    bits = bits_of(quantized(bits="w2a4"))
    # Read by the Add too, so 8 bits; the convolution rounds it to 4.
    assert bits["re_lu"] == (None, 8)
    assert bits["depthwise_conv2d"] == (2, 4, None)
    # Read by two convolutions only.
    assert bits["re_lu_2"] == (None, 4)
    assert bits["conv2d_2"] == (2, None, None)
    # First and last layer.
    assert bits["conv2d"] == (8, 8, None)
    assert bits["logits"] == (8, None, 8)


def test_signedness_is_found_in_the_graph():
    model = quantized()
    signed = {
        layer.name: layer.output_quantizer.signed
        for layer in model.layers
        if isinstance(layer, Quantized) and layer.output_quantizer
    }
    assert not signed["re_lu"] and not signed["dense"]
    assert signed["batch_normalization_2"] and signed["logits"]
    # The images are not negative: found in the calibration data.
    assert model.get_layer("conv2d").input_quantizer.signed is False


def test_paper_scheme_quantizes_only_inputs_of_weighted_layers():
    policy = keras_saq.QuantizePolicy.preset("w3a3", scheme="paper")
    x, _ = images()
    model = networks.preactivation_network()
    model = keras_saq.quantize_model(model, policy, calibration=x)
    bits = bits_of(model)
    assert bits["conv2d"] == (8, None, None)
    assert bits["conv2d_1"] == (3, 3, None)
    assert bits["dense"] == (8, 8, None)
    assert set(bits) == {"conv2d", "conv2d_1", "conv2d_2", "dense"}
    fit(model, epochs=1)


def test_rules_choose_layers_and_leave_others_in_float():
    policy = keras_saq.QuantizePolicy(
        rules=(
            keras_saq.Rule(path="conv2d_1", weight_bits=2, activation_bits=8),
            keras_saq.Rule(
                layer_type="Conv2D", weight_bits=5, activation_bits=8
            ),
        ),
        first_last_bits=None,
    )
    with pytest.warns(UserWarning, match="logits +Dense +no rule"):
        q = keras_saq.quantize_model(networks.residual_network(), policy)
    bits = bits_of(q)
    assert bits["conv2d"][0] == 5 and bits["conv2d_1"][0] == 2
    assert "logits" not in bits or len(bits["logits"]) == 2


def test_calibration_from_the_first_batch_of_fit():
    x, y = images()
    for data in ("array", "dataset", "generator"):
        q = keras_saq.quantize_model(networks.sequential_network(), "w4a8")
        networks.compile_model(q)
        with pytest.raises(
            ValueError, match="cannot predict(.|\n)*calibration="
        ):
            q.predict(x, verbose=0)
        with pytest.raises(ValueError, match="cannot evaluate"):
            q.evaluate(x, y, verbose=0)
        if data == "array":
            q.fit(x, y, verbose=0)
        elif data == "dataset":
            tf = pytest.importorskip("tensorflow")
            batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
            q.fit(batches, shuffle=False, verbose=0)
        else:
            batches = ((x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16))
            with pytest.warns(UserWarning, match="cannot be read again"):
                history = q.fit(
                    batches, steps_per_epoch=4, shuffle=False, verbose=0
                )
            assert np.isfinite(history.history["loss"]).all()
        assert np.isfinite(q.predict(x, verbose=0)).all()


def test_calibration_by_hand():
    x, _ = images()
    q = keras_saq.quantize_model(networks.sequential_network(), "w4a8")
    keras_saq.calibrate(q, [x[:32], x[32:]])
    scales = numpy_variables(q)
    keras_saq.calibrate(q, 100 * x)  # has its scales already
    for a, b in zip(scales, numpy_variables(q)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_save_load_and_one_more_step(name, tmp_path):
    model = fit(quantized(name, "w2a4"))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is type(model)
    x, y = images()
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )
    for a, b in zip(model._flatten_layers(), loaded._flatten_layers()):
        if isinstance(a, layers.Dropout):
            # The one thing that Keras does not save: the dropout's place in
            # its sequence of masks.
            b.seed_generator.state.assign(a.seed_generator.state.numpy())
    assert_same_variables(model, loaded)
    for m in (model, loaded):
        m.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    assert_same_variables(model, loaded)


def test_slice_clone_and_deepcopy_keep_quantizers(tmp_path):
    model = fit(quantized())
    x, _ = images()
    part = keras.Model(model.inputs, model.get_layer("re_lu_2").output)
    expected = part.predict(x, verbose=0)
    part.save(tmp_path / "part.keras")
    loaded = keras.saving.load_model(tmp_path / "part.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
    assert loaded.get_layer("conv2d_1").input_source().name == "re_lu_1"

    clone = keras.models.clone_model(model)
    assert type(clone) is type(model)
    clone.set_weights(model.get_weights())
    expected = model.predict(x, verbose=0)
    outputs = keras.ops.convert_to_numpy(clone(x))
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    for layer in clone.layers:
        find = getattr(layer, "input_source", None)
        source = None if find is None else find()
        if source is not None:
            assert source is clone.get_layer(source.name)

    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin.predict(x, verbose=0), expected)


def test_a_layer_used_twice():
    inputs = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, padding="same")
    x = layers.ReLU()(conv(layers.ReLU()(conv(inputs))))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 4)).astype("float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    # Its two inputs have scales of their own.
    names = [layer.name for layer in q.layers]
    assert any(name.startswith(f"{conv.name}_input_0") for name in names)
    expected = model.predict(x, verbose=0)
    error = np.abs(q.predict(x, verbose=0) - expected).max()
    assert error < 0.05 * np.abs(expected).max()


# --- Bad input: one clear error, and nothing changes.


def test_not_a_model():
    with pytest.raises(ValueError, match="must be a `keras.Model`"):
        keras_saq.quantize_model("model.keras", "w4a8")


def test_unbuilt_model():
    model = keras.Sequential([layers.Dense(3)])
    with pytest.raises(ValueError, match="not built(.|\n)*keras.Input"):
        keras_saq.quantize_model(model, "w4a8")
    assert not model.built


def test_quantized_twice():
    with pytest.raises(ValueError, match="quantized already"):
        keras_saq.quantize_model(quantized(), "w4a8")


class Tailed(keras.Model):
    """Keras cannot know what it was made with, so it cannot be copied."""

    def __init__(self, tail):
        super().__init__()
        self.dense = layers.Dense(3)
        self.tail = tail

    def call(self, x):
        return self.tail(self.dense(x))


def test_a_model_that_cannot_be_copied_is_quantized_in_place():
    model = Tailed(keras.ops.tanh)
    x = np.eye(4, dtype="float32")
    model(x)
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match="'tailed'(.|\n)*inplace=True"),
    ):
        keras_saq.quantize_model(model, "w4a8")
    assert type(model) is Tailed
    with pytest.warns(UserWarning, match="tanh"):
        q = keras_saq.quantize_model(model, "w4a8", x, inplace=True)
    assert q is model
    codes = q.dense.kernel_quantizer.codes(q.dense.kernel)
    scale = q.dense.kernel_quantizer.scale
    seen = q.dense.overlaid_values()[0][1]
    np.testing.assert_allclose(seen, codes * scale, rtol=1e-6)
    q.compile("sgd", "mse")
    q.fit(x, np.ones((4, 3)), verbose=0)
    assert q.predict(x, verbose=0).shape == (4, 3)


@keras.saving.register_keras_serializable("keras_saq_tests")
class Forgetful(keras.Model):
    """Its configuration leaves out the number of units."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return super().get_config()


def test_a_config_that_leaves_something_out():
    model = Forgetful(5)
    model(np.eye(4, dtype="float32"))
    with pytest.raises(
        ValueError,
        match=r"kernel', expected the shape \(4, 5\), received \(4, 3\)"
        r"(.|\n)*inplace=True",
    ):
        keras_saq.quantize_model(model, "w8")


def test_a_number_among_the_arguments_of_an_operation():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs) * 0.5
    x = 2.0 * layers.Dense(4)(x) + layers.Dense(4)(1.0 - x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    assert not q.float_layers
    expected = model.predict(x, verbose=0)
    error = np.abs(q.predict(x, verbose=0) - expected).max()
    assert error < 0.05 * np.abs(expected).max()


class HalfUsed(layers.Layer):
    """Never calls, and so never builds, one of its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.used, self.unused = layers.Dense(4), layers.Dense(4)

    def build(self, input_shape):
        self.used.build(input_shape)

    def call(self, x):
        return self.used(x)


def test_a_layer_that_is_never_called():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(HalfUsed(name="half")(inputs)))
    x = np.eye(4, dtype="float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    rows = keras_saq.summary(q, print_fn=False).rows
    assert [row.weight_bits for row in rows] == [8, 8]
    assert not q.get_layer("half").unused.built


class Residual(layers.Layer):
    """Makes a layer in its `call`, as some backbones do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 1)

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, x):
        return layers.Add()([self.conv(x), x])


def test_a_layer_that_is_made_in_a_call_holds_no_quantizer():
    inputs = keras.Input((8, 8, 4))
    x = Residual(name="residual")(inputs)
    model = keras.Model(inputs, layers.Conv2D(3, 3, name="reader")(x))
    q = keras_saq.quantize_model(model, "w8a8")
    assert not q.float_layers
    assert q.get_layer("residual").conv.output_quantizer is not None
    assert q.get_layer("reader").input_quantizer is not None


def test_a_backbone_of_any_size_in_a_model_of_a_fixed_size():
    inputs = keras.Input((None, None, 3))
    backbone = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            backbone,
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        ]
    )
    q = keras_saq.quantize_model(model, "w8a8")
    macs = [row.macs for row in keras_saq.summary(q, print_fn=False).rows]
    assert macs == [6 * 6 * 3 * 3 * 3 * 4, 4 * 3]


def test_an_activation_inside_a_layer_is_reported():
    inputs = keras.Input((4,))
    x = layers.Dense(4, activation="swish", name="inner")(inputs)
    outputs = layers.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    with pytest.warns(UserWarning, match="1 layer(.|\n)*inner +Dense +its act"):
        q = keras_saq.quantize_model(model, "w8a8")
    assert [layer.path for layer in q.float_layers] == ["inner"]


def test_nothing_to_quantize():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.ReLU()(inputs))
    with pytest.raises(ValueError, match="no layer that the policy quantizes"):
        keras_saq.quantize_model(model, "w4a8")


def with_layer_norm():
    inputs = keras.Input((4,))
    x = layers.LayerNormalization(name="norm")(layers.Dense(4)(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


def test_unsupported_layer_warns_once_with_a_table():
    x = np.eye(4, dtype="float32")
    with pytest.warns(UserWarning) as record:
        q = keras_saq.quantize_model(with_layer_norm(), "w8a8", calibration=x)
    (warning,) = [w for w in record if w.category is UserWarning]
    assert "norm" in str(warning.message)
    assert "LayerNormalization" in str(warning.message)
    assert "no integer form is known" in str(warning.message)
    assert q.predict(x, verbose=0).shape == (4, 3)


def test_unsupported_layer_is_refused_when_strict():
    model = with_layer_norm()
    before = numpy_variables(model)
    with pytest.raises(ValueError, match="norm.*LayerNormalization"):
        keras_saq.quantize_model(model, "w8a8", strict=True)
    for a, b in zip(before, numpy_variables(model)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "data, message",
    [
        (np.zeros((0, 8, 8, 1)), "at least one sample"),
        (np.zeros((4, 9, 8, 1)), "shapes of the model's inputs"),
        (np.full((4, 8, 8, 1), np.nan), "must be finite"),
        ([], "at least one batch"),
        (3, "must be an array"),
    ],
)
def test_bad_calibration_data(data, message):
    model = networks.sequential_network()
    with pytest.raises(ValueError, match=message):
        keras_saq.quantize_model(model, "w4a8", calibration=data)


def test_dead_kernels_are_named():
    inputs = keras.Input((32,))
    model = keras.Model(inputs, layers.Dense(4, name="spiky")(inputs))
    kernel = np.full((32, 4), 1e-3, "float32")
    kernel[0] = 1.0
    model.get_layer("spiky").kernel.assign(kernel)
    with pytest.warns(UserWarning, match="spiky.kernel: 97%"):
        keras_saq.quantize_model(model, "w4a8")
