"""Calls, operands and parts of unlike ranges have scales of their own."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from tests.field import IMAGES
from tests.field import RANDOM
from tests.field import gap
from tests.field import whole_way

pytestmark = pytest.mark.filterwarnings("ignore:.*in float")


def applied_twice():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    dense = layers.Dense(4)
    model = keras.Model(inputs, dense(dense(inputs)))
    dense.kernel.assign(dense.kernel * 5)
    return model, RANDOM.normal(size=(64, 4)).astype("float32")


def siamese_of_unlike_inputs():
    a, b = keras.Input((6,)), keras.Input((6,))
    dense = layers.Dense(5, activation="relu")
    model = keras.Model([a, b], layers.Add()([dense(a), dense(b)]))
    x = RANDOM.normal(size=(64, 6)).astype("float32")
    return model, [x, 300 * x[::-1].copy()]


def applied_three_times():
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", activation="relu")
    x = conv(layers.Rescaling(20.0)(conv(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(conv(x)))
    return model, IMAGES


def shared_activation():
    inputs = keras.Input((6,))
    relu = layers.ReLU()
    x = relu(layers.Dense(8)(inputs))
    y = relu(layers.Rescaling(100.0)(layers.Dense(8)(inputs)))
    return keras.Model(inputs, [layers.Dense(2)(x), layers.Dense(2)(y)]), (
        RANDOM.normal(size=(64, 6)).astype("float32")
    )


SHARED = [
    applied_twice,
    siamese_of_unlike_inputs,
    applied_three_times,
    shared_activation,
]


@pytest.mark.parametrize("build", SHARED)
def test_a_shared_layer_has_a_scale_for_each_call(build, tmp_path):
    model, x = build()
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    expected, made = model(x), q(x)
    for a, b in zip(keras.tree.flatten(expected), keras.tree.flatten(made)):
        a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
        assert np.abs(a - b).max() < 0.1 * np.abs(a).max()
    q.save(tmp_path / "q.keras")
    again = keras.saving.load_model(tmp_path / "q.keras")
    for a, b in zip(keras.tree.flatten(made), keras.tree.flatten(again(x))):
        np.testing.assert_array_equal(a, b)
    path = tmp_path / "q.tflite"
    keras_saq.export_litert(again, path)
    first = keras.tree.map_structure(lambda a: a[:8], x)
    assert keras_saq.verify_litert(path, again, first).within_bounds


def product(first, second):
    """A raw input beside what a layer makes, of another size."""
    i, j = keras.Input((6, 4)), keras.Input((6, 6))
    h = layers.Dense(8)(i)
    made = ops.matmul(j, h) if first == "matmul" else second(j, h)
    x = RANDOM.normal(0, 30, (64, 6, 4)).astype("float32")
    w = RANDOM.uniform(0, 1, (64, 6, 6)).astype("float32")
    return keras.Model([i, j], made), [x, w]


OPERANDS = {
    "matmul": None,
    "einsum": lambda j, h: ops.einsum("bij,bjk->bik", j, h),
    "multiply": lambda j, h: j[:, :, :4] * h[:, :, :4],
    "dot": lambda j, h: layers.Dot(axes=(2, 1))([j, h]),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_each_operand_has_a_scale(name, tmp_path):
    model, x = product(name, OPERANDS[name])
    whole_way(model, x, tmp_path)


def boxes_and_scores():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    box = layers.Reshape((64, 4))(layers.Conv2D(4, 1)(x)) * 416.0
    score = layers.Conv2D(3, 1, activation="sigmoid")(x)
    score = layers.Reshape((64, 3))(score)
    return keras.Model(inputs, layers.Concatenate()([box, score])), 4


def boxes_and_scores_behind_a_move():
    model, split = boxes_and_scores()
    moved = layers.Reshape((8, 8, 7))(model.output)
    return keras.Model(model.inputs[0], moved), split


def pixels_and_probabilities():
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(inputs))
    parts = [layers.Rescaling(1e4)(layers.Dense(2)(x)), layers.Softmax()(x)]
    return keras.Model(inputs, ops.concatenate(parts, -1)), 2


@pytest.mark.parametrize(
    "build",
    [
        boxes_and_scores,
        boxes_and_scores_behind_a_move,
        pixels_and_probabilities,
    ],
)
def test_joined_outputs_of_unlike_ranges_keep_their_steps(build, tmp_path):
    model, split = build()
    q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    small = q.predict(IMAGES, verbose=0)[..., split:]
    assert len(np.unique(small)) > 20
    expected = model.predict(IMAGES, verbose=0)[..., split:]
    assert np.abs(small - expected).max() < 0.1
    path = tmp_path / "q.tflite"
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, IMAGES[:8]).within_bounds


def test_logits_take_the_scale_that_serves_the_softmax():
    """Far-negative outliers clip: behind the softmax they are zero."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(inputs))
    kernel = np.zeros((8, 3), "float32")
    kernel[0, 0] = kernel[1, 1] = 1
    kernel[7, 2] = -400
    model.layers[-1].set_weights([kernel, np.zeros(3, "float32")])
    x = RANDOM.normal(0, 1, (1000, 8)).astype("float32")
    x[:, 7] = np.arange(1000) % 100 == 0
    q = keras_saq.quantize_model(model, "w8a8", calibration=x[:512])
    usual = x[:, 7] == 0
    a, b = (m.predict(x, verbose=0)[usual].argmax(1) for m in (model, q))
    assert (a == b).mean() > 0.95


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_the_same_of_functions_that_saturate(activation):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3, activation=activation)(inputs))
    kernel = np.zeros((8, 3), "float32")
    kernel[0, 0] = kernel[1, 1] = 1
    kernel[7, 2] = -400
    model.layers[-1].set_weights([kernel, np.zeros(3, "float32")])
    x = RANDOM.normal(0, 1, (1000, 8)).astype("float32")
    x[:, 7] = np.arange(1000) % 100 == 0
    q = keras_saq.quantize_model(model, "w8a8", calibration=x[:512])
    assert gap(model, q, x[x[:, 7] == 0]) < 0.1
