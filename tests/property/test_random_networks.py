"""Random small networks, taken the whole way.

Of each: the copy with its quantizers off is the model, bit for bit; at 8 bits
it is near the float model, or a warning names a layer; the file computes what
its program specifies; and what goes wrong is a ValueError with a layer's path.

More of them: `NETWORKS=500 pytest tests/property`.
"""

import os
import warnings

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers
from keras import ops

import keras_saq
from keras_saq.quantizers import pass_through_scope

NETWORKS = int(os.environ.get("NETWORKS", "6"))
LEAST_DB = 20.0

IMAGE_STEPS = {
    "average": lambda: layers.AveragePooling2D(2, padding="same"),
    "batch_norm": layers.BatchNormalization,
    "bilinear": lambda: layers.UpSampling2D(interpolation="bilinear"),
    "conv": lambda: layers.Conv2D(4, 3, padding="same"),
    "conv_relu": lambda: layers.Conv2D(5, 2, activation="relu"),
    "crop": lambda: layers.Cropping2D(1),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
    "dropout": lambda: layers.Dropout(0.3),
    "gelu": lambda: layers.Activation("gelu"),
    "group_norm": lambda: layers.GroupNormalization(1),
    "leaky": layers.LeakyReLU,
    "max": lambda: layers.MaxPooling2D(padding="same"),
    "pad": layers.ZeroPadding2D,
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    "relu": layers.ReLU,
    "separable": lambda: layers.SeparableConv2D(4, 3, padding="same"),
    "sigmoid": lambda: layers.Activation("sigmoid"),
    "transposed": lambda: layers.Conv2DTranspose(3, 2, strides=2),
    "upsampling": layers.UpSampling2D,
}
VECTOR_STEPS = {
    "batch_norm": layers.BatchNormalization,
    "dense": lambda: layers.Dense(6),
    "dense_relu": lambda: layers.Dense(9, activation="relu"),
    "dense_tanh": lambda: layers.Dense(7, activation="tanh"),
    "layer_norm": layers.LayerNormalization,
    "softmax": layers.Softmax,
}
SEQUENCE_STEPS = {
    "attention": lambda: _Attention(),
    "conv": lambda: layers.Conv1D(6, 3, padding="causal"),
    "dense": lambda: layers.Dense(6),
    "gru": lambda: layers.GRU(4, return_sequences=True),
    "layer_norm": layers.LayerNormalization,
    "lstm": lambda: layers.LSTM(4, return_sequences=True),
    "max": layers.MaxPooling1D,
    "time": lambda: layers.TimeDistributed(layers.Dense(5)),
}
KINDS = {
    "image": ((6, 6, 3), IMAGE_STEPS, layers.GlobalAveragePooling2D),
    "sequence": ((6, 4), SEQUENCE_STEPS, layers.GlobalAveragePooling1D),
    "vector": ((8,), VECTOR_STEPS, None),
}
JOINS = ("none", "add", "concatenate", "multiply", "nested", "twice")
WEIGHTS = ("usual", "one zero", "one huge", "small")


@keras.saving.register_keras_serializable("random_networks")
class _Attention(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4)

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return x + self.attention(x, x)


@st.composite
def networks(draw):
    """A kind, the names of its steps, how a branch joins, its weights."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    names = st.sampled_from(sorted(KINDS[kind][1]))
    return (
        kind,
        draw(st.lists(names, min_size=1, max_size=4)),
        draw(st.sampled_from(JOINS)),
        draw(st.sampled_from(WEIGHTS)),
        draw(st.integers(0, 2**16)),
    )


def build(kind, names, join, weights, seed):
    """The network, or `None` where its sizes do not fit."""
    keras.utils.set_random_seed(seed)
    shape, steps, pool = KINDS[kind]
    inputs = keras.Input(shape)
    try:
        x = inputs
        for name in names:
            x = steps[name]()(x)
        if min(n or 1 for n in x.shape) < 1:
            return None
        x = joined(x, join)
        if pool is not None:
            x = pool()(x)
        outputs = layers.Dense(3, name="head")(x)
    except ValueError:
        return None
    model = keras.Model(inputs, outputs)
    change(model, weights, np.random.default_rng(seed))
    return model


def joined(x, join):
    if join == "none":
        return x
    width = x.shape[-1]
    if join == "nested":
        given = keras.Input(x.shape[1:])
        inner = keras.Model(given, layers.Dense(width, "relu")(given))
        return inner(x)
    dense = layers.Dense(width)
    if join == "twice":
        return dense(layers.ReLU()(dense(x)))
    operation = {
        "add": layers.Add,
        "concatenate": layers.Concatenate,
        "multiply": layers.Multiply,
    }[join]
    return operation()([x, dense(x)])


def change(model, weights, random):
    """Statistics of some training, and weights that are odd."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            width = layer.gamma.shape
            layer.moving_mean.assign(random.normal(0, 0.2, width))
            layer.moving_variance.assign(random.uniform(0.5, 2, width))
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    chosen = kernels[int(random.integers(len(kernels)))]
    factor = {"usual": 1, "one zero": 0, "one huge": 1e4, "small": 1e-3}
    chosen.assign(ops.convert_to_numpy(chosen) * factor[weights])


@pytest.mark.filterwarnings("ignore")
@settings(
    deadline=None,
    max_examples=NETWORKS,
    suppress_health_check=list(HealthCheck),
    derandomize=NETWORKS <= 10,
)
@given(networks())
def test_networks(tmp_path_factory, network):
    model = build(*network)
    if model is None:
        return
    shape = (32, *model.input_shape[1:])
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    paths = [layer.name for layer in model._flatten_layers()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        q = keras_saq.quantize_model(model, "w8a8", x, correct=False)
    said = "\n".join(str(warning.message) for warning in caught)
    with pass_through_scope():
        same = ops.convert_to_numpy(q(x))
    np.testing.assert_array_equal(same, ops.convert_to_numpy(model(x)))
    if keras_saq.compare(model, q, x).db < LEAST_DB:
        assert any(path in said for path in paths), said
    path = tmp_path_factory.mktemp("network") / "model.tflite"
    try:
        report = keras_saq.export_litert(q, path)
    except ValueError as error:
        assert any(name in str(error) for name in paths), error
        return
    parity = keras_saq.verify_litert(path, q, x[:8])
    assert parity.within_bounds, parity
    # What no island makes inexact equals the reference, code by code.
    assert parity.reference_exact or report.error_sources, parity
