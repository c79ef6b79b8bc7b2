"""What a file cannot hold is refused by name, before one is written."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_saq
from tests.field import IMAGES
from tests.field import VECTORS

pytestmark = pytest.mark.filterwarnings("ignore:.*(in float|no LiteRT file)")


def refused(model, x, folder, match):
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    with pytest.raises(ValueError, match=match):
        keras_saq.export_litert(q, folder / "m.tflite")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("bias", [False, True])
def test_sums_that_pass_2_31(bias, tmp_path):
    inputs = keras.Input((140000,))
    dense = layers.Dense(
        1, use_bias=bias, kernel_initializer="ones", name="far"
    )
    model = keras.Model(inputs, dense(inputs))
    x = np.ones((2, 140000), "float32")
    refused(model, x, tmp_path, "far")


def test_sums_just_below_2_31_go_out(tmp_path):
    # 2^31 / (127 * 255) = 66,311 products of the largest codes.
    inputs = keras.Input((60000,))
    dense = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, dense(inputs))
    x = np.ones((2, 60000), "float32")
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    keras_saq.export_litert(q, tmp_path / "m.tflite")
    parity = keras_saq.verify_litert(tmp_path / "m.tflite", q, x)
    assert parity.reference_exact


def test_sums_of_a_product_of_two_tensors(tmp_path):
    a, b = keras.Input((1, 140000)), keras.Input((140000, 1))
    model = keras.Model([a, b], layers.Dense(1)(ops.matmul(a, b)))
    x = [-np.ones((2, 1, 140000), "f4"), -np.ones((2, 140000, 1), "f4")]
    refused(model, x, tmp_path, "2\\^31|overflow")


@pytest.mark.parametrize(
    "average",
    [
        lambda x: layers.GlobalAveragePooling2D(name="far")(x),
        lambda x: layers.AveragePooling2D(6, name="far")(x),
    ],
)
def test_sums_of_an_average(average, tmp_path, monkeypatch):
    inputs = keras.Input((8, 8, 3))
    x = average(layers.Conv2D(2, 3, activation="relu", name="first")(inputs))
    model = keras.Model(inputs, layers.Flatten()(x))
    # 36 codes of up to 255, and the convolution 27 products of up to 127 * 255.
    q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    monkeypatch.setattr("keras_saq.export.accumulator.LARGEST_SUM", 36 * 255)
    with pytest.raises(ValueError, match="first|far"):
        keras_saq.export_litert(q, tmp_path / "m.tflite")
    monkeypatch.setattr("keras_saq.export.pending.check_reach", lambda *_: None)
    keras_saq.export_litert(q, tmp_path / "m.tflite")
    monkeypatch.setattr(
        "keras_saq.export.accumulator.LARGEST_SUM", 36 * 255 - 1
    )
    with pytest.raises(ValueError, match="'far'.*36 codes"):
        keras_saq.export_litert(q, tmp_path / "m.tflite")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_values_that_are_not_finite(value, name, tmp_path):
    model = keras.Sequential(
        [keras.Input((16,)), layers.Dense(8, name="hurt"), layers.Dense(2)]
    )
    q = keras_saq.quantize_model(model, "w4a8", calibration=VECTORS)
    variable = getattr(q.get_layer("hurt"), name)
    hurt = np.array(ops.convert_to_numpy(variable))
    hurt.flat[0] = value
    variable.assign(hurt)
    with pytest.raises(ValueError, match="hurt.*finite"):
        keras_saq.export_litert(q, tmp_path / "m.tflite")


def test_statistics_that_are_not_finite(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(name="hurt"),
        ]
    )
    q = keras_saq.quantize_model(model, "w8a8", calibration=IMAGES)
    norm = q.get_layer("hurt")
    norm.moving_variance.assign(np.full(4, np.inf, "float32"))
    with pytest.raises(ValueError, match="hurt.*finite"):
        keras_saq.export_litert(q, tmp_path / "m.tflite")


def test_states_between_calls(tmp_path):
    inputs = keras.Input(batch_shape=(4, 5, 16))
    lstm = layers.LSTM(4, stateful=True, name="keeps")
    model = keras.Model(inputs, layers.Dense(2)(lstm(inputs)))
    x = np.repeat(VECTORS[:, None], 5, 1)
    refused(model, x, tmp_path, "keeps.*state")


def test_channels_first(tmp_path):
    inputs = keras.Input((3, 8, 8))
    pool = layers.GlobalAveragePooling2D(
        data_format="channels_first", name="first"
    )
    model = keras.Model(inputs, layers.Dense(2)(pool(inputs)))
    x = np.moveaxis(IMAGES, -1, 1)
    refused(model, x, tmp_path, "first.*channels_first")


def test_text(tmp_path):
    lookup = layers.StringLookup(
        vocabulary=["a", "b"], output_mode="one_hot", name="words"
    )
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    refused(model, np.array([["a"], ["b"]]), tmp_path, "words.*text")


def test_all_of_it_at_once(tmp_path):
    inputs = keras.Input(batch_shape=(4, 5, 16))
    x = layers.LSTM(4, stateful=True, name="one", return_sequences=True)(inputs)
    x = layers.GRU(4, stateful=True, name="two")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = np.repeat(VECTORS[:, None], 5, 1)
    refused(model, x, tmp_path, "(?s)one.*two")
