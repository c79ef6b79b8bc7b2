"""What is all zero at calibration trains, exports, and is named."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from keras_saq.quantizers import LSQ
from keras_saq.quantizers.silence import PATIENCE
from keras_saq.quantizers.silence import find_silent
from keras_saq.quantizers.silence import listen
from keras_saq.quantizers.silence import stand_in
from tests.field import IMAGES
from tests.field import RANDOM

NAMED = "nothing but zeros"


def zero_gamma():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(6, 3, padding="same")(x)
    y = layers.BatchNormalization(gamma_initializer="zeros", name="zero")(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x)), IMAGES


def zero_head():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(2, kernel_initializer="zeros", name="zero")
    return keras.Model(inputs, head(x)), IMAGES


def dead_relu():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    x = layers.Conv2D(
        6,
        3,
        activation="relu",
        bias_initializer=keras.initializers.Constant(-9),
        name="zero",
    )(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), IMAGES


def zero_adapter():
    """The second half of a low-rank adapter starts at zero."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1)(inputs)
    low = layers.Dense(2)(x)
    up = layers.Dense(6, kernel_initializer="zeros", name="zero")(low)
    x = layers.GlobalAveragePooling2D()(x + up)
    return keras.Model(inputs, layers.Dense(2)(x)), IMAGES


def zero_depthwise():
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(
        3, depthwise_initializer="zeros", padding="same", name="zero"
    )(inputs)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x + inputs))
    return keras.Model(inputs, layers.Dense(2)(x)), IMAGES


CASES = [zero_gamma, zero_head, dead_relu, zero_adapter, zero_depthwise]


@pytest.mark.parametrize("build", CASES)
def test_it_is_named_and_exports(build, tmp_path):
    model, x = build()
    with pytest.warns(UserWarning, match=NAMED) as caught:
        q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    assert any("zero" in str(w.message) for w in caught)
    path = tmp_path / "q.tflite"
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, x[:8]).reference_exact


@pytest.mark.filterwarnings(f"ignore:.*{NAMED}")
@pytest.mark.parametrize("build", [zero_gamma, zero_head, zero_adapter])
def test_it_trains_as_the_float_model_does(build, tmp_path):
    keras.utils.set_random_seed(1)
    model, x = build()
    y = RANDOM.normal(size=(len(x), 2)).astype("float32")
    y = 0.1 * y + np.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    losses = []
    for each in (model, q):
        each.compile(keras.optimizers.Adam(1e-2), "mse")
        h = each.fit(x, y, epochs=30, batch_size=16, shuffle=False, verbose=0)
        losses.append(h.history["loss"])
    assert losses[1][-1] < 1.5 * losses[0][-1] + 0.1 * losses[0][0]
    q.save(tmp_path / "q.keras")
    again = keras.saving.load_model(tmp_path / "q.keras")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(q(x)), ops.convert_to_numpy(again(x))
    )
    keras_saq.export_litert(again, tmp_path / "q.tflite")
    parity = keras_saq.verify_litert(tmp_path / "q.tflite", again, x[:8])
    assert parity.reference_exact


def test_blank_images_take_their_scale_from_the_first_others():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(2, 3, use_bias=False)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.warns(UserWarning, match=NAMED):
        q = keras_saq.quantize_model(
            model, "w8a8", calibration=np.zeros_like(IMAGES)
        )
    q.compile(keras.optimizers.Adam(1e-4), "mse")
    large = 40 * IMAGES
    q.fit(large, model.predict(large, verbose=0), epochs=2, verbose=0)
    a, b = model.predict(large, verbose=0), q.predict(large, verbose=0)
    assert np.abs(a - b).max() < 0.2 * np.abs(a).max()


# --- The state of a silent scale, by hand


def test_stand_ins_have_the_size_of_their_neighbours():
    rows = np.array([[0.0, 0, 0], [1, -2, 3], [0.5, 0.1, -5]], "float32")
    silent = find_silent(rows, True)
    assert silent.tolist() == [True, False, False]
    filled = stand_in(rows, silent, True)
    assert np.abs(filled[0]).max() == 4.0  # the median of 3 and 5
    np.testing.assert_array_equal(filled[1:], rows[1:])


def test_of_unsigned_rows_only_what_is_positive_counts():
    rows = np.array([[-1.0, -2, 0], [-1, 2, 0]], "float32")
    assert find_silent(rows, False).tolist() == [True, False]
    assert stand_in(rows, np.array([True, False]), False)[0].min() == 0


def test_a_scale_listens_once_then_follows_what_grows():
    first = listen(np.float32(0), np.float32(PATIENCE), np.float32(-3.0))
    assert [float(v) for v in first] == [-3.0, PATIENCE - 1]
    growth, left = listen(*first, np.float32(-1.0))
    assert (float(growth), float(left)) == (-1.0, PATIENCE - 2)
    growth, _ = listen(growth, left, np.float32(-5.0))
    np.testing.assert_allclose(float(growth), -1.01)
    # What never was silent is not touched.
    still = listen(np.float32(0.5), np.float32(0), np.float32(9.0))
    assert [float(v) for v in still] == [0.5, 0.0]


def test_a_quantizer_that_was_never_silent_has_no_state_for_it():
    quantizer = LSQ(8)
    quantizer.initialize(np.array([1.0, -2.0], "float32"))
    assert not quantizer.listens and len(quantizer.variables) <= 3
    quantizer.initialize(np.zeros(4, "float32"))
    assert quantizer.listens
