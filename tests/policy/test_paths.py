import keras

import keras_saq
from keras_saq.policy import layer_paths

layers = keras.layers


class Block(layers.Layer):
    """A composite layer."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(units, name="first")
        self.rest = [layers.Dense(units, name="second"), layers.ReLU(name="r")]

    def call(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block(4, name="block")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(self.block(x))


def paths(model):
    return [path for path, _ in layer_paths(model)]


def test_nested_models():
    inner = keras.Sequential([layers.Dense(4, name="a")], name="inner")
    inputs = keras.Input((4,))
    middle = keras.Model(inputs, inner(inputs), name="middle")
    model = keras.Sequential([keras.Input((4,)), middle, inner])
    assert paths(model) == [
        "middle",
        "middle/inner",
        "middle/inner/a",
        "inner",
        "inner/a",
    ]
    found = dict(layer_paths(model))
    assert found["inner/a"] is found["middle/inner/a"]


def test_composites_and_subclassed_models():
    block = ["block", "block/first", "block/second", "block/r"]
    model = Subclassed()
    model(keras.ops.ones((1, 3)))
    assert paths(model) == [*block, "head"]
    model = keras.Sequential([keras.Input((3,)), Block(4, name="block")])
    assert paths(model) == block


def test_attention_and_recurrent_layers():
    inputs = keras.Input((5, 4))
    x = layers.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
    x = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both")(x)
    found = paths(keras.Model(inputs, x))
    assert {
        "attention",
        "attention/query",
        "attention/attention_output",
        "both",
        "both/forward_lstm",
        "both/backward_lstm/lstm_cell",
    } <= set(found)
    assert len(found) == len(set(found))


def test_a_layer_inside_of_itself_ends_the_path():
    block = Block(4, name="block")
    block.again = block
    assert paths(keras.Sequential([block]))[-1] == "block/r"


def test_quantizers_are_no_layers_of_the_model():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="head"),
        ]
    )
    q = keras_saq.quantize_model(model, "w4a8")
    assert q.get_layer("conv").quantizers
    assert paths(q) == paths(model) == ["conv", "flatten", "head"]
