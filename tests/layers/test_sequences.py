"""Recurrent layers, attention, embeddings, and wrappers around layers."""

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.layers import Quantized
from tests.layers.base import Base

layers = keras.layers
# The softmax of attention, and loops over cells, are computed in float.
in_float = pytest.mark.filterwarnings("ignore:.*stay in float")


class Sequences(Base):
    shape = (5, 4)
    tolerance = 0.1


class TestEinsumDense(Sequences):
    def layer(self):
        return layers.EinsumDense(
            "abc,cde->abde", output_shape=(5, 3, 2), bias_axes="de"
        )


class TestEinsumDenseWithAnEllipsis(Sequences):
    def layer(self):
        return layers.EinsumDense("...x,xy->...y", output_shape=6)


class TestLSTM(Sequences):
    def layer(self):
        return layers.LSTM(4)


class TestGRU(Sequences):
    def layer(self):
        return layers.GRU(4, return_sequences=True)


class TestSimpleRNN(Sequences):
    def layer(self):
        return layers.SimpleRNN(4)


@in_float
class TestStackedCells(Sequences):
    def layer(self):
        return layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)])


class TestConvLSTM2D(Sequences):
    shape = (3, 5, 5, 2)

    def layer(self):
        return layers.ConvLSTM2D(2, 3)


class TestBidirectional(Sequences):
    def layer(self):
        return layers.Bidirectional(layers.LSTM(3))


class TestTimeDistributed(Sequences):
    def layer(self):
        return layers.TimeDistributed(layers.Dense(3))


class TestTimeDistributedModel(Sequences):
    shape = (3, 6, 6, 2)

    def layer(self):
        return layers.TimeDistributed(
            keras.Sequential(
                [
                    keras.Input((6, 6, 2)),
                    layers.Conv2D(3, 3),
                    layers.BatchNormalization(),
                    layers.ReLU(),
                ]
            )
        )


@in_float
class TestMultiHeadAttention(Sequences):
    def layer(self):
        return layers.MultiHeadAttention(2, 3)

    def call(self, layer, x):
        return layer(x, x)


@in_float
class TestGroupQueryAttention(Sequences):
    def layer(self):
        return layers.GroupQueryAttention(3, 4, 2)

    def call(self, layer, x):
        return layer(x, x, use_causal_mask=True)


class TestEmbedding(Sequences):
    shape = (6,)
    # Small weights of an untrained table, averaged.
    tolerance = 0.2

    def layer(self):
        return layers.Embedding(10, 4, embeddings_initializer="normal")

    def model(self):
        inputs = keras.Input(self.shape, dtype="int32")
        x = layers.Conv1D(3, 2)(self.layer()(inputs))
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    def data(self):
        rng = np.random.default_rng(1)
        x = rng.integers(0, 10, (16, *self.shape)).astype("int32")
        return x, rng.normal(size=(16, 3)).astype("float32")


def attention_model(dropout=0.0, **kwargs):
    inputs = keras.Input((5, 8))
    layer = layers.MultiHeadAttention(2, 4, dropout=dropout, name="attention")
    x = layer(inputs, inputs, **kwargs)
    return keras.Model(inputs, layers.Dense(3)(x))


@in_float
def test_both_products_of_attention_read_quantized_tensors():
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype("float32")
    q = keras_saq.quantize_model(attention_model(), "w4a4", calibration=x)
    attention = q.get_layer("attention")
    for projection in ("query", "key", "value"):
        dense = getattr(attention, f"_{projection}_dense")
        assert dense.output_quantizer.num_bits == 4
        assert dense.weight_quantizer("kernel").num_bits in (4, 8)
    scores = attention._softmax.output_quantizer
    assert scores.calibrated and scores.qmin == 0
    # What the products see are few values.
    _, seen = attention(x, x, return_attention_scores=True)
    assert len(np.unique(keras.ops.convert_to_numpy(seen))) <= 16


@in_float
@pytest.mark.parametrize("is_causal", [False, True])
def test_quantized_attention_computes_what_attention_computes(is_causal):
    model = attention_model(dropout=0.5, use_causal_mask=is_causal)
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype("float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    expected = model.predict(x, verbose=0)
    error = np.abs(q.predict(x, verbose=0) - expected).max()
    assert error < 0.05 * np.abs(expected).max()
    # A causal result does not depend on what comes later.
    changed = np.concatenate([x[:, :-1], -x[:, -1:]], axis=1)
    same = q.predict(changed, verbose=0)[:, 0] == q.predict(x, verbose=0)[:, 0]
    assert same.all() == is_causal


@in_float
def test_weight_only_attention_keeps_its_fused_products():
    q = keras_saq.quantize_model(attention_model(), "w4")
    attention = q.get_layer("attention")
    assert isinstance(attention._query_dense, Quantized)
    assert not isinstance(attention._softmax, Quantized)
    assert all(
        set(layer.quantizers) == set(layer.quantize_config.weights.values())
        for layer in q._flatten_layers()
        if isinstance(layer, Quantized)
    )


def test_a_recurrent_kernel_is_quantized_once_per_call(monkeypatch):
    inputs = keras.Input((7, 4))
    model = keras.Model(inputs, layers.LSTM(3)(inputs))
    x = np.ones((2, 7, 4), "float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    quantizer = q.layers[-1].weight_quantizer("cell.recurrent_kernel")
    calls = []
    call = type(quantizer).call

    def counted(self, x, *args, **kwargs):
        calls.append(self)
        return call(self, x, *args, **kwargs)

    monkeypatch.setattr(type(quantizer), "call", counted)
    q(x)
    assert calls.count(quantizer) == 1


@pytest.mark.parametrize("merge_mode", ["concat", "sum"])
def test_bidirectional_has_quantizers_for_each_direction(merge_mode):
    inputs = keras.Input((5, 4))
    layer = layers.Bidirectional(layers.GRU(3), merge_mode=merge_mode)
    model = keras.Model(inputs, layer(inputs))
    x = np.ones((2, 5, 4), "float32")
    q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    wrapper = q.layers[-1]
    first, second = wrapper.forward_layer, wrapper.backward_layer
    assert isinstance(first, Quantized) and isinstance(second, Quantized)
    assert first.weight_quantizer("cell.kernel") is not (
        second.weight_quantizer("cell.kernel")
    )
