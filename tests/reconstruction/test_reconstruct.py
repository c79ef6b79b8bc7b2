"""Blocks are found, get better, are exported exactly and go on training."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.reconstruction.blocks import find_blocks

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 8, 8, 3)).astype("float32")


def residual(seed=0):
    keras.utils.set_random_seed(seed)

    def conv(x, name):
        x = layers.Conv2D(8, 3, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="stem")(conv(inputs, "conv"))
    for i in range(2):
        y = layers.ReLU()(conv(x, f"a{i}"))
        y = conv(y, f"b{i}")
        x = layers.Add(name=f"add{i}")([x, y])
        x = layers.ReLU(name=f"end{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def sequential():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="one"),
            layers.DepthwiseConv2D(3, name="two"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="three"),
        ]
    )


@keras.saving.register_keras_serializable("test_reconstruct")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(6, 3, activation="relu")
        self.head = layers.Dense(3)

    def call(self, x):
        x = self.conv(x)
        return self.head(keras.ops.mean(x, (1, 2)))


def subclassed():
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(X)
    return model


def pair(make, bits="w3a8", **kwargs):
    model = make()
    q = keras_saq.quantize_model(model, bits, calibration=X, **kwargs)
    return model, q


def names(make):
    model, q = pair(make)
    return [block.name for block in find_blocks(q, model)]


def test_blocks():
    assert names(residual) == ["stem", "end0", "pool", "head"]
    assert names(sequential) == ["one", "flat", "three"]
    assert len(names(subclassed)) == 1


def test_blocks_are_the_model():
    model, q = pair(residual)
    x = y = X
    for block in find_blocks(q, model):
        x, y = block.model(x), block.float_model(y)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(q(X)))
    np.testing.assert_array_equal(np.asarray(y), np.asarray(model(X)))


def distance(model, q):
    return float(np.square(np.asarray(model(X)) - np.asarray(q(X))).mean())


@pytest.mark.parametrize("make", [residual, sequential, subclassed])
def test_it_gets_nearer(make):
    model, q = pair(make)
    before = distance(model, q)
    found = keras_saq.reconstruct(q, model, X, steps=120, verbose=0)
    # The ends have 8 bits: with nothing between, there is little to learn.
    assert distance(model, q) < (1.0 + 1e-6 * (make is subclassed)) * before
    assert all(row.after <= row.before for row in found.blocks)
    assert "error before" in str(found)


def test_weights_move_by_a_step_at_most():
    model, q = pair(residual)
    keras_saq.reconstruct(q, model, X, steps=40, verbose=0)
    moved = 0
    for layer in q.layers:
        for name, variable, quantizer in getattr(
            layer, "quantized_weights", list
        )():
            old = np.asarray(getattr(model.get_layer(layer.name), name))
            new = np.asarray(variable)
            scale = np.asarray(quantizer.scale_for(old.shape))
            assert (np.abs(new - old) / scale).max() < 1.0
            moved += (quantizer.codes(new) != quantizer.codes(old)).sum()
    assert moved > 0


def test_other_cuts_and_more_inputs():
    model, q = pair(residual)
    found = keras_saq.reconstruct(
        q, model, X, steps=2, blocks=["end0"], verbose=0
    )
    assert [row.name for row in found.blocks] == ["end0", "head"]
    with pytest.raises(ValueError, match="cannot be cut behind .'a0'"):
        keras_saq.reconstruct(q, model, X, blocks=["a0"])
    inputs = [keras.Input((4,), name="a"), keras.Input((4,), name="b")]
    x = layers.Concatenate()([layers.Dense(3)(i) for i in inputs])
    model = keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(1)(x)])
    x = [RANDOM.normal(size=(32, 4)).astype("float32") for _ in inputs]
    q = keras_saq.quantize_model(model, "w3a8", calibration=x)
    found = keras_saq.reconstruct(q, model, x, steps=5, verbose=0)
    assert len(found.blocks) >= 1


def test_a_weight_per_sample():
    model, q = pair(sequential)
    keras_saq.reconstruct(
        q, model, X, steps=2, sample_weight=np.arange(64.0), verbose=0
    )
    with pytest.raises(ValueError, match="one number"):
        keras_saq.reconstruct(q, model, X, sample_weight=np.ones(3), verbose=0)


def test_errors():
    model = sequential()
    with pytest.raises(ValueError, match="needs a quantized model"):
        keras_saq.reconstruct(model, model, X)
    q = keras_saq.quantize_model(model)
    with pytest.raises(ValueError, match="be reconstructed"):
        keras_saq.reconstruct(q, model, X)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough"
)
def test_exported_and_trained(tmp_path):
    model, q = pair(residual, "w4a4")
    keras_saq.reconstruct(q, model, X, steps=30, verbose=0)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, X).reference_exact == 1.0
    before = [np.array(v) for v in q.trainable_variables]
    q.compile("sgd", "mse")
    q.fit(X, np.zeros((64, 4)), verbose=0)
    assert any(
        not np.array_equal(a, b) for a, b in zip(before, q.trainable_variables)
    )
