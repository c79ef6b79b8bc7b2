"""`trainable=False` survives quantization, and files."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from tests.networks import compile_model

X = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


@keras.saving.register_keras_serializable("test_frozen")
class Block(keras.layers.Layer):
    """A composite with a batch norm; its constructor knows no `trainable`."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(name="norm")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, x, training=None):
        x = keras.ops.relu(self.norm(self.conv(x), training=training))
        return x + x

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("test_frozen")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.base = Block(4, name="base")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(2, name="head")

    def call(self, x, training=None):
        return self.head(self.pool(self.base(x, training=training)))

    def get_config(self):
        return {"name": self.name}


def functional_base():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, x + x, name="base")


def sequential_base():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ],
        name="base",
    )


def nested_base():
    inputs = keras.Input((8, 8, 3))
    inner = sequential_base()
    inner.name = "inner"
    return keras.Model(inputs, Block(4)(inner(inputs)), name="base")


def with_head(base):
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(base(inputs))
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def subclassed():
    model = Subclassed(name="subclassed")
    model(X[:1])
    return model


MODELS = {
    "functional": lambda: with_head(functional_base()),
    "sequential": lambda: with_head(sequential_base()),
    "nested": lambda: with_head(nested_base()),
    "composite": lambda: with_head(Block(4, name="base")),
    "subclassed": subclassed,
}


def base_of(model):
    if isinstance(model, Subclassed):
        return model.base
    return model.get_layer("base")


def train(model):
    model.compile(keras.optimizers.Adam(1e-1), "mse")
    model.fit(X, np.ones((64, 2)), batch_size=32, epochs=1, verbose=0)


def values(layer):
    return [keras.ops.convert_to_numpy(v).copy() for v in layer.variables]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_base_stays_as_it_is(name, when, tmp_path):
    model = MODELS[name]()
    if when == "before":
        base_of(model).trainable = False
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    if when == "after":
        base_of(q).trainable = False
    for i in range(2):
        base = base_of(q)
        before, head = values(base), values(q.layers[-1])
        outputs = np.asarray(base(X))
        assert not base.trainable
        assert not base.trainable_variables
        train(q)
        assert same(before, values(base))
        assert np.array_equal(outputs, np.asarray(base(X)))
        assert not same(head, values(q.layers[-1]))
        if i == 0:
            q.save(tmp_path / "q.keras")
            q = keras.saving.load_model(tmp_path / "q.keras")


def test_what_is_not_frozen_trains():
    model = with_head(functional_base())
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    before = values(base_of(q))
    train(q)
    assert base_of(q).trainable
    # Statistics, gamma and beta, kernel and the scales.
    changed = [
        not np.array_equal(a, b) for a, b in zip(before, values(base_of(q)))
    ]
    assert sum(changed) >= 7


def test_one_frozen_layer_among_others():
    model = with_head(functional_base())
    base_of(model).layers[1].trainable = False
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    conv = base_of(q).layers[1]
    before = values(conv)
    train(q)
    assert same(before, values(conv))
    assert base_of(q).trainable


def test_the_scale_of_a_frozen_kernel_is_frozen():
    model = with_head(functional_base())
    model.get_layer("head").kernel.trainable = False
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    head = q.get_layer("head")
    scale = np.asarray(head.kernel_quantizer.scale)
    bias = np.asarray(head.bias)
    train(q)
    assert np.array_equal(scale, np.asarray(head.kernel_quantizer.scale))
    assert not np.array_equal(bias, np.asarray(head.bias))


def test_a_frozen_quantizer_does_not_follow_the_data():
    policy = keras_saq.QuantizePolicy.preset(
        "w8a8", activation_quantizer="moving_average"
    )
    model = with_head(functional_base())
    base_of(model).trainable = False
    q = keras_saq.quantize_model(model, policy, calibration=X)
    before = values(base_of(q))
    compile_model(q)
    q.fit(10 * X, np.zeros(64), epochs=1, verbose=0)
    assert same(before, values(base_of(q)))


def test_annotated_models_keep_what_is_frozen():
    model = with_head(functional_base())
    base_of(model).trainable = False
    annotated = keras_saq.quantize_annotate_model(model)
    q = keras_saq.quantize_apply(annotated, "w4a8", X)
    assert not base_of(q).trainable
    before = values(base_of(q))
    train(q)
    assert same(before, values(base_of(q)))


def test_strip_keeps_what_is_frozen():
    model = with_head(functional_base())
    base_of(model).trainable = False
    q = keras_saq.quantize_model(model, "w4a8", calibration=X)
    stripped = keras_saq.strip(q)
    assert not base_of(stripped).trainable
    assert len(stripped.trainable_variables) == 2
