"""Composite layers and models, shared layers, custom layers, operations."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq import Rule
from keras_saq.layers import Quantized
from keras_saq.models import quantized_layers
from keras_saq.quantizers import LSQ
from tests.layers.base import Base
from tests.networks import assert_same_variables

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A residual block as users write it, with operations in its `call`."""

    def __init__(self, filters=4, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.first = layers.Conv2D(filters, 3, padding="same", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.relu = layers.ReLU(name="relu")
        self.second = layers.Conv2D(filters, 1, name="second")

    def call(self, x, training=False):
        y = self.relu(self.norm(self.first(x), training=training))
        return keras.ops.relu(self.second(y) + x)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """A layer with weights of its own, which no table knows."""

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1], 3))

    def call(self, x):
        return keras.ops.matmul(x, self.gain)


@keras.saving.register_keras_serializable("tests")
class Classifier(keras.Model):
    """A subclassed model with a Sequential and a composite in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = keras.Sequential(
            [layers.Conv2D(4, 3), layers.ReLU()], name="stem"
        )
        self.block = Block(4, name="block")
        self.head = layers.Dense(3, name="head")

    def call(self, x, training=False):
        x = self.block(self.stem(x), training=training)
        return self.head(keras.ops.mean(x, axis=(1, 2)))


class TestBlock(Base):
    def layer(self):
        return Block()


class TestBlockOfBlocks(Base):
    def layer(self):
        return keras.Sequential([keras.Input((6, 6, 4)), Block(), Block()])


def images(num=16):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num, 8, 8, 2)).astype("float32")
    return x, rng.normal(size=(num, 3)).astype("float32")


def classifier():
    model = Classifier()
    x, _ = images()
    model(x)
    return keras_saq.quantize_model(model, "w4a8", calibration=x)


def test_a_subclassed_model_trains_and_is_saved(tmp_path):
    q = classifier()
    assert isinstance(q, Classifier)
    x, y = images()
    q.compile("sgd", "mse")
    q.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded) is type(q)
    assert_same_variables(q, loaded)
    for model in (q, loaded):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert_same_variables(q, loaded)
    np.testing.assert_array_equal(
        q.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )


@pytest.mark.parametrize("make", [classifier, TestBlockOfBlocks().quantized])
def test_no_two_variables_have_one_path(make, tmp_path):
    q = make()
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for model in (q, loaded):
        paths = [variable.path for variable in model.variables]
        assert len(set(paths)) == len(paths)
        assert any("first/kernel_quantizer/" in path for path in paths)


def test_links_inside_of_a_composite_survive_a_file(tmp_path):
    def links(model):
        found = quantized_layers(model)
        return [
            layer.input_source() and found.index(layer.input_source())
            for layer in found
        ]

    q = classifier()
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert links(loaded) == links(q)
    # The bias of `second` counts in steps of what `relu` makes, and the norm
    # rounds with the steps of the convolution before it.
    for model in (q, loaded):
        assert model.block.second.input_source() is model.block.relu
        assert model.block.norm.input_source() is model.block.first


def test_the_link_into_a_composite_is_the_layer_before_it():
    inputs = keras.Input((8, 8, 2))
    x = layers.ReLU(name="before")(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Flatten()(Block(name="block")(x)))
    q = keras_saq.quantize_model(model, "w4a8", calibration=images()[0])
    assert q.get_layer("block").first.input_source().name == "before"
    assert q.get_layer("block").first.input_quantizer is None


def test_paths_of_layers_inside_are_matched_by_rules():
    model = Classifier()
    model(images()[0])
    policy = keras_saq.QuantizePolicy(
        rules=(
            Rule(path="block/second", weight_bits=2, activation_bits=4),
            Rule(path="stem/.*", keep_float=True),
            Rule(weight_bits=8, activation_bits=8),
        ),
        first_last_bits=None,
    )
    q = keras_saq.quantize_model(model, policy)
    assert q.block.second.weight_quantizer("kernel").num_bits == 2
    assert q.block.first.weight_quantizer("kernel").num_bits == 8
    assert not any(
        isinstance(layer, Quantized) for layer in q.stem._flatten_layers()
    )
    assert {row.path.split("/")[0] for row in q.float_layers} == {"stem"}


def test_a_custom_layer_through_a_config_that_names_its_weight(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Scaled(name="scaled")(inputs))
    config = keras_saq.QuantizeConfig(
        {"gain": LSQ(4, narrow_range=True, channel_axes=(-1,))},
        inputs=LSQ(8),
    )
    policy = keras_saq.QuantizePolicy(rules=(Rule(config=config),))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    q = keras_saq.quantize_model(model, policy, calibration=x)
    quantizer = q.get_layer("scaled").weight_quantizer("gain")
    assert quantizer is not config.weights["gain"]
    read = q.get_layer("scaled").input_quantizer(x)
    gain = quantizer(q.get_layer("scaled").gain)
    expected = keras.ops.convert_to_numpy(keras.ops.matmul(read, gain))
    np.testing.assert_allclose(q.predict(x, verbose=0), expected, rtol=1e-5)
    q.compile("sgd", "mse")
    before = np.copy(keras.ops.convert_to_numpy(quantizer.log_scale))
    q.fit(x, np.ones((8, 3)), verbose=0)
    assert np.all(keras.ops.convert_to_numpy(quantizer.log_scale) != before)
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_same_variables(q, loaded)


def test_a_layer_that_no_table_knows_is_reported():
    inputs = keras.Input((4,))
    x = Scaled(name="scaled")(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.warns(UserWarning, match="scaled  Scaled"):
        q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4))
    (row,) = q.float_layers
    assert (row.path, row.layer_type) == ("scaled", "Scaled")
    assert "scaled" in str(keras_saq.summary(q, print_fn=False))
    # Computed in float, between integers: its output has a scale.
    assert q.get_layer("scaled").output_quantizer.calibrated


def test_operations_of_a_functional_model_hold_quantizers(tmp_path):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3)(inputs)
    y = layers.Conv2D(4, 1)(keras.ops.relu(x))
    model = keras.Model(inputs, keras.ops.relu(x + y))
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    assert q.float_layers == []
    outputs = q.predict(x, verbose=0)
    assert 2 < len(np.unique(outputs)) <= 256
    q.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), outputs)
    # And they are operations again in the float model.
    names = [type(op).__name__ for op in keras_saq.strip(q).operations]
    assert names.count("Relu") == 2 and names.count("Add") == 1


def test_a_layer_shared_by_two_towers_has_one_quantizer():
    encoder = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, activation="relu", name="shared")]
    )
    a, b = keras.Input((8,)), keras.Input((8,))
    joined = layers.Concatenate()([encoder(a), encoder(b)])
    model = keras.Model([a, b], layers.Dense(1)(joined))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(8, 8)).astype("float32") for _ in range(2)]
    q = keras_saq.quantize_model(model, "w4a8", calibration=data)
    shared = [x for x in quantized_layers(q) if x.name == "shared"]
    assert len(shared) == 1
    summary = keras_saq.summary(q, print_fn=False)
    rows = [row for row in summary.rows if row.path.endswith("shared")]
    # Two calls cost twice the multiplications; the weights are stored once.
    assert [row.macs for row in rows] == [32, 32]
    assert rows[0].stored_bytes > 0 and rows[1].stored_bytes == 0


class Opaque(layers.Layer):
    """Its `call` needs numbers, so it cannot be followed symbolically."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")

    def call(self, x):
        y = self.dense(x)
        if isinstance(y, keras.KerasTensor):
            raise TypeError("numbers only")
        return y


def test_a_composite_that_cannot_be_followed_is_quantized_at_its_inputs():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(Opaque(name="opaque")(inputs)))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    with pytest.warns(UserWarning, match="cannot be followed.*numbers only"):
        q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    dense = q.get_layer("opaque").dense
    assert dense.weight_quantizer("kernel").num_bits == 4
    assert dense.input_quantizer.calibrated


def test_the_descent_leaves_no_node_behind():
    inputs = keras.Input((8, 8, 2))
    block = Block(2)
    model = keras.Model(inputs, block(inputs))
    before = [
        len(x._inbound_nodes) + len(x._outbound_nodes)
        for x in model._flatten_layers()
    ]
    keras_saq.quantize_model(model, "w4a8")
    after = [
        len(x._inbound_nodes) + len(x._outbound_nodes)
        for x in model._flatten_layers()
    ]
    assert after == before
