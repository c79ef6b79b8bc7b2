import keras
import numpy as np
import pytest

import keras_saq
from keras_saq import QuantizeConfig
from keras_saq import QuantizePolicy
from keras_saq import Rule
from keras_saq import quantize_annotate_layer
from keras_saq import quantize_annotate_model
from keras_saq import quantize_apply
from keras_saq import quantize_scope
from keras_saq.layers import Quantized
from keras_saq.models.annotation import QuantizeAnnotate
from keras_saq.quantizers import LSQ
from tests.networks import assert_same_variables
from tests.networks import fit
from tests.networks import images
from tests.networks import numpy_variables

layers = keras.layers


@keras.saving.register_keras_serializable("test_annotate")
class KernelConfig(QuantizeConfig):
    """Written as for TFMOT."""

    def __init__(self, num_bits=3):
        self.num_bits = num_bits

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, LSQ(self.num_bits, narrow_range=True))]

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, LSQ(6))]

    def get_config(self):
        return {"num_bits": self.num_bits}


def functional_network(annotate=quantize_annotate_layer, config=None):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, name="stem")(inputs)
    x = annotate(layers.Conv2D(6, 3, name="conv"))(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = annotate(layers.Dense(8, name="hidden"), config)(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def sequential_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, name="conv"),
            layers.Flatten(name="flatten"),
            quantize_annotate_layer(layers.Dense(8, name="hidden")),
            quantize_annotate_layer(layers.Dense(10, name="head")),
        ]
    )


def float_network():
    return functional_network(lambda layer, config=None: layer)


def nested_network():
    """Annotated layers in a model in a model, one of them used twice."""
    inputs = keras.Input((8,))
    shared = quantize_annotate_layer(layers.Dense(8, name="shared"))
    x = layers.Dense(8, name="plain")(shared(inputs))
    inner = keras.Model(inputs, shared(x), name="inner")
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.Sequential([inner, layers.ReLU(name="relu")], name="outer"),
            quantize_annotate_layer(layers.Dense(4, name="head")),
        ]
    )


NETWORKS = {
    "functional": functional_network,
    "sequential": sequential_network,
    "nested": nested_network,
}


def inputs_of(model, num=16):
    shape = (num, *model.input_shape[1:])
    return np.random.default_rng(0).random(shape, "float32")


def quantized_names(model):
    return {
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, Quantized)
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_an_annotated_model_computes_in_float(name):
    model = NETWORKS[name]()
    x = inputs_of(model)
    stripped = keras.models.clone_model(
        model,
        clone_function=lambda layer: getattr(layer, "layer", layer),
        recursive=True,
    )
    assert quantized_names(model) == set()
    expected = stripped.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    assert len(model.variables) == len(stripped.variables)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_annotated_model_is_saved_and_loaded(name, tmp_path):
    model = NETWORKS[name]()
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_same_variables(loaded, model)
    x = inputs_of(model)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert [type(a) for a in loaded.layers] == [type(a) for a in model.layers]
    first, second = (
        quantized_names(quantize_apply(m, "w4a8")) for m in (loaded, model)
    )
    assert first == second


def test_an_annotated_model_is_trained():
    model = functional_network()
    before = numpy_variables(model)
    fit(model, epochs=1)
    for a, b in zip(before, numpy_variables(model), strict=True):
        assert (a != b).any()


@pytest.mark.parametrize("name", NETWORKS)
def test_apply_leaves_the_annotated_model_alone(name):
    model = NETWORKS[name]()
    x = inputs_of(model)
    before = numpy_variables(model)
    config, expected = model.get_config(), model.predict(x, verbose=0)
    quantize_apply(model, "w4a8", calibration=x)
    assert model.get_config() == config
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    for a, b in zip(before, numpy_variables(model), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("functional", {"conv", "hidden"}),
        ("sequential", {"hidden", "head"}),
        ("nested", {"shared", "head"}),
    ],
)
def test_only_annotated_layers_are_quantized(name, expected):
    model = NETWORKS[name]()
    q = quantize_apply(model, "w4a8", calibration=inputs_of(model))
    # Beside the scales of each call of a shared layer.
    apart = {name for name in quantized_names(q) if "shared_" in name}
    assert quantized_names(q) - apart == expected
    assert isinstance(q, type(model))
    assert q.name == model.name
    assert not any(
        isinstance(layer, QuantizeAnnotate) for layer in q._flatten_layers()
    )


def test_the_weights_are_those_of_the_annotated_model():
    model = functional_network()
    q = quantize_apply(model, "w4a8")
    for name in ("stem", "head"):
        expected = model.get_layer(name).get_weights()
        for a, b in zip(q.get_layer(name).get_weights(), expected):
            np.testing.assert_array_equal(a, b)
    annotated = [a for a in model.layers if isinstance(a, QuantizeAnnotate)]
    for layer in (a.layer for a in annotated):
        kernel = q.get_layer(layer.name).kernel
        np.testing.assert_array_equal(kernel, layer.kernel)


def test_the_result_trains_and_is_saved(tmp_path):
    x, _ = images()
    q = quantize_apply(functional_network(), "w4a8", calibration=x)
    scale = np.copy(q.get_layer("conv").kernel_quantizer.scale)
    fit(q, epochs=1)
    assert (
        np.asarray(q.get_layer("conv").kernel_quantizer.scale) != scale
    ).all()
    q.save(tmp_path / "q.keras")
    loaded = keras.saving.load_model(tmp_path / "q.keras")
    assert_same_variables(loaded, q)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), q.predict(x, verbose=0)
    )


def test_a_config_stands_before_the_policy():
    x, _ = images()
    model = functional_network(config=KernelConfig(3))
    q = quantize_apply(model, "w5a7", calibration=x)
    hidden = q.get_layer("hidden")
    assert hidden.kernel_quantizer.num_bits == 3
    assert hidden.kernel_quantizer.channel_axes == ()
    assert hidden.output_quantizer.num_bits == 6
    assert q.get_layer("conv").kernel_quantizer.num_bits in (5, 8)


def test_two_layers_with_one_config_have_quantizers_of_their_own():
    config = QuantizeConfig({"kernel": LSQ(6)})
    model = keras.Sequential(
        [
            keras.Input((4,)),
            quantize_annotate_layer(layers.Dense(4, name="a"), config),
            quantize_annotate_layer(layers.Dense(4, name="b"), config),
        ]
    )
    q = quantize_apply(model)
    first, second = (q.get_layer(n).kernel_quantizer for n in "ab")
    assert first is not second
    assert first.num_bits == second.num_bits == 6


def test_the_policy_serves_annotated_layers():
    policy = QuantizePolicy(
        rules=(
            Rule(path="hidden", weight_bits=2, activation_bits=4),
            Rule(weight_bits=6, activation_bits=8),
        ),
        first_last_bits=None,
    )
    q = quantize_apply(functional_network(), policy)
    assert q.get_layer("hidden").kernel_quantizer.num_bits == 2
    assert q.get_layer("conv").kernel_quantizer.num_bits == 6


def test_rules_for_other_layers_are_no_mistake():
    stem = Rule(path="stem", weight_bits=8)
    rest = Rule(weight_bits=4, activation_bits=8)
    quantize_apply(functional_network(), QuantizePolicy(rules=(stem, rest)))
    misspelt = QuantizePolicy(rules=(Rule(path="haed", weight_bits=8), rest))
    with pytest.warns(UserWarning, match="decide nothing.*haed"):
        quantize_apply(functional_network(), misspelt)


def test_the_idiom_of_clone_model():
    model = float_network()

    def annotate_dense(layer):
        if isinstance(layer, layers.Dense):
            return quantize_annotate_layer(layer)
        return layer

    annotated = keras.models.clone_model(model, clone_function=annotate_dense)
    x, _ = images()
    np.testing.assert_array_equal(
        annotated.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    q = quantize_apply(annotated, "w4a8", calibration=x)
    assert quantized_names(q) == {"hidden", "head"}
    assert type(model.get_layer("head")) is layers.Dense


def test_a_model_annotated_as_a_whole_is_quantized_as_a_whole():
    x, _ = images()
    model = float_network()
    annotated = quantize_annotate_model(model)
    assert quantized_names(annotated) == set()
    assert_same_variables(annotated, model)
    assert not {id(v) for v in annotated.variables} & {
        id(v) for v in model.variables
    }
    q = quantize_apply(annotated, "w4a8", calibration=x)
    expected = keras_saq.quantize_model(model, "w4a8", calibration=x)
    assert quantized_names(q) == quantized_names(expected)
    assert_same_variables(q, expected)
    np.testing.assert_array_equal(
        q.predict(x, verbose=0), expected.predict(x, verbose=0)
    )


def test_operations_of_a_model_annotated_as_a_whole():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    x = layers.Dense(4, name="b")(keras.ops.relu(x) + inputs)
    model = keras.Model(inputs, x)
    x = inputs_of(model)
    q = quantize_apply(quantize_annotate_model(model), "w4a8", calibration=x)
    expected = keras_saq.quantize_model(model, "w4a8", calibration=x)
    np.testing.assert_array_equal(
        q.predict(x, verbose=0), expected.predict(x, verbose=0)
    )


def test_annotating_a_model_keeps_annotations():
    model = functional_network(config=KernelConfig(3))
    annotated = quantize_annotate_model(model)
    wrappers = [a for a in annotated.layers if isinstance(a, QuantizeAnnotate)]
    assert len(wrappers) == len(annotated.layers) - 1
    assert not any(isinstance(a.layer, QuantizeAnnotate) for a in wrappers)
    configs = {a.layer.name: a.quantize_config for a in wrappers}
    assert configs.pop("hidden") == KernelConfig(3)
    assert set(configs.values()) == {None}
    q = quantize_apply(annotated, "w8a8")
    assert q.get_layer("hidden").kernel_quantizer.num_bits == 3


def test_several_inputs_keyword_arguments_and_masks():
    inputs = keras.Input((5,), dtype="int32")
    annotate = quantize_annotate_layer
    x = annotate(layers.Embedding(9, 4, mask_zero=True))(inputs)
    y = annotate(layers.MultiHeadAttention(2, 2))(
        x, value=x, use_causal_mask=True
    )
    x = annotate(layers.Add())([x, y])
    x = annotate(layers.LSTM(3))(x)
    model = keras.Model(inputs, x)
    plain = keras.models.clone_model(
        model, clone_function=lambda layer: getattr(layer, "layer", layer)
    )
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    np.testing.assert_array_equal(
        model.predict(tokens, verbose=0), plain.predict(tokens, verbose=0)
    )
    masked = model.layers[1](tokens)
    np.testing.assert_array_equal(masked._keras_mask, tokens != 0)


def test_training_reaches_the_layer():
    layer = quantize_annotate_layer(layers.Dropout(0.5))
    x = keras.ops.ones((4, 64))
    assert (np.asarray(layer(x, training=True)) == 0).any()
    assert (np.asarray(layer(x, training=False)) == 1).all()
    layer = quantize_annotate_layer(layers.BatchNormalization(momentum=0.5))
    layer(x, training=True)
    assert (np.asarray(layer.layer.moving_mean) == 0.5).all()


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_the_dtype_is_the_layers(dtype):
    layer = quantize_annotate_layer(layers.Dense(2, dtype=dtype))
    y = layer(keras.ops.ones((1, 3)))
    assert keras.backend.standardize_dtype(y.dtype) == dtype[len("mixed_") :]
    assert layer.layer.kernel.dtype == "float32"


def test_a_scope_for_classes_of_ones_own(tmp_path):
    class OwnConfig(QuantizeConfig):
        pass

    model = functional_network(config=OwnConfig({"kernel": LSQ(3)}))
    model.save(tmp_path / "m.keras")
    with quantize_scope({"OwnConfig": OwnConfig}):
        loaded = keras.saving.load_model(tmp_path / "m.keras")
    configs = [
        layer.quantize_config
        for layer in loaded.layers
        if isinstance(layer, QuantizeAnnotate)
    ]
    assert [type(config) for config in configs] == [type(None), OwnConfig]
    assert configs[1].weights["kernel"].num_bits == 3
    with quantize_scope():
        assert quantized_names(quantize_apply(loaded)) == {"conv", "hidden"}


@keras.saving.register_keras_serializable("test_annotate")
class Block(layers.Layer):
    def __init__(self, annotate=lambda layer: layer, **kwargs):
        super().__init__(**kwargs)
        self.inner = annotate(layers.Dense(4, name="inner"))

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config()


@pytest.mark.parametrize("annotated", [True, False])
def test_composite_layers(annotated):
    block = Block(name="block")
    if annotated:
        block = quantize_annotate_layer(block)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            quantize_annotate_layer(layers.Dense(4, name="first")),
            block,
        ]
    )
    names = quantized_names(quantize_apply(model, "w4a8"))
    assert names >= {"first"}
    assert ("inner" in names) is annotated


def test_a_nested_model_is_annotated_as_one_layer(tmp_path):
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU()],
        name="inner",
    )
    model = keras.Sequential(
        [
            keras.Input((4,)),
            quantize_annotate_layer(inner),
            layers.Dense(4, name="b"),
        ]
    )
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_same_variables(loaded, model)
    names = quantized_names(quantize_apply(loaded, "w4a8"))
    assert "a" in names
    assert "b" not in names


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.head = quantize_annotate_layer(layers.Dense(2, name="head"))

    def call(self, x):
        return self.head(x)


def test_subclassed_models_are_refused():
    model = Subclassed()
    model(keras.ops.ones((1, 3)))
    for function in (quantize_apply, quantize_annotate_model):
        with pytest.raises(ValueError, match="'own' of type Subclassed"):
            function(model)


def test_annotations_that_cannot_be_taken_off():
    block = Block(quantize_annotate_layer, name="block")
    model = keras.Sequential([keras.Input((4,)), block])
    with pytest.raises(ValueError, match="block/quantize_annotate.*as a whole"):
        quantize_apply(model)


def test_unbuilt_models():
    model = keras.Sequential([quantize_annotate_layer(layers.Dense(2))])
    for function in (quantize_apply, quantize_annotate_model):
        with pytest.raises(ValueError, match="is not built"):
            function(model)
    model.build((None, 3))
    assert len(quantized_names(quantize_apply(model))) == 1


def test_nothing_annotated():
    with pytest.raises(ValueError, match="No layer .* is annotated"):
        quantize_apply(float_network())


def test_quantized_already():
    q = keras_saq.quantize_model(float_network(), "w4a8")
    for function in (quantize_apply, quantize_annotate_model):
        with pytest.raises(ValueError, match="already: 'stem' is a Quantized"):
            function(q)


def test_no_model():
    for function in (quantize_apply, quantize_annotate_model):
        with pytest.raises(ValueError, match="quantize_annotate_layer.*Dense"):
            function(layers.Dense(2))


@pytest.mark.parametrize(
    "layer, config, message",
    [
        (None, None, "Only a Keras 3 layer .*NoneType"),
        (layers.Dense, None, "Only a Keras 3 layer"),
        (layers.Dense(2), "w4a8", "must be a `keras_saq.QuantizeConfig`"),
        (layers.Dense(2), QuantizeConfig, "of type type"),
    ],
)
def test_bad_annotations(layer, config, message):
    with pytest.raises(ValueError, match=message):
        quantize_annotate_layer(layer, config)


def test_annotated_already():
    layer = quantize_annotate_layer(layers.Dense(2, name="head"))
    with pytest.raises(ValueError, match="'head' is annotated already"):
        quantize_annotate_layer(layer)


def test_names_that_would_clash():
    inputs = keras.Input((3,))
    x = quantize_annotate_layer(layers.Dense(3, name="same"))(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="same")(x))
    with pytest.raises(ValueError, match="would have the path 'same'"):
        quantize_apply(model)


def test_a_config_that_does_not_fit_names_the_layer():
    config = QuantizeConfig({"weights": LSQ(4)})
    model = functional_network(config=config)
    with pytest.raises(ValueError, match="'hidden' .* no weight 'weights'"):
        quantize_apply(model)
