"""Open sizes, resized inputs, and the names that a user gave."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from keras import ops

import keras_saq
from tests.field import IMAGES
from tests.field import RANDOM
from tests.field import VECTORS
from tests.field import between

pytestmark = pytest.mark.filterwarnings("ignore:.*in float")


def exported(model, x, folder, **kwargs):
    q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    path = folder / "model.tflite"
    keras_saq.export_litert(q, path, **kwargs)
    return q, str(path)


def run(path, x):
    """The file's outputs for an input of any size, as LiteRT has them."""
    interpreter = Interpreter(model_path=path)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


FULLY_CONVOLUTIONAL = {
    "strided": lambda x: layers.Conv2D(2, 3, strides=2, padding="same")(x),
    "pooled": lambda x: layers.Conv2D(2, 1)(layers.MaxPooling2D()(x)),
    "averaged": lambda x: layers.Dense(2)(layers.GlobalAveragePooling2D()(x)),
    "bilinear": lambda x: layers.Conv2D(2, 1)(
        layers.UpSampling2D(interpolation="bilinear")(x)
    ),
    "gated": lambda x: x * layers.Conv2D(4, 1, activation="sigmoid")(x),
}


@pytest.mark.parametrize("name", FULLY_CONVOLUTIONAL)
def test_open_height_and_width_stay_open(name, tmp_path):
    model = between(FULLY_CONVOLUTIONAL[name], (None, None, 3))
    q, path = exported(model, IMAGES, tmp_path)
    for size in (8, 12):
        x = RANDOM.normal(size=(2, size, size, 3)).astype("float32")
        # In `predict` Keras resizes bilinearly to known sizes only.
        expected = ops.convert_to_numpy(q(x))
        made = run(path, x)
        assert made.shape == expected.shape
        assert np.abs(made - expected).max() < 0.05 * np.abs(expected).max()
    assert keras_saq.verify_litert(path, q, IMAGES[:4]).within_bounds


@pytest.mark.parametrize(
    "function",
    [
        lambda x: layers.Conv2D(2, 1)(layers.UpSampling2D()(x)),
        lambda x: layers.Conv2D(2, 1)(ops.reshape(x, (-1, 4, 16, 4))),
        lambda x: layers.Dense(2)(layers.Flatten()(x)),
        lambda x: layers.Conv2DTranspose(2, 2, strides=2)(x),
    ],
    ids=["upsampling", "reshape", "flatten", "transposed"],
)
def test_a_resized_input_is_followed_or_refused(function, tmp_path):
    q, path = exported(between(function), IMAGES, tmp_path)
    x = RANDOM.normal(size=(1, 16, 16, 3)).astype("float32")
    try:
        made = run(path, x)
    except (RuntimeError, ValueError):
        return
    free = between(function, (16, 16, 3))
    assert made.shape[1:] == free.output_shape[1:]


@pytest.mark.parametrize("size", [8, 16])
def test_open_sizes_can_be_fixed(size, tmp_path):
    function = FULLY_CONVOLUTIONAL["averaged"]
    model = between(function, (None, None, 3))
    q, path = exported(model, IMAGES, tmp_path, input_shape=(size, size, 3))
    details = Interpreter(model_path=path).get_input_details()
    assert details[0]["shape_signature"].tolist() == [-1, size, size, 3]
    x = RANDOM.normal(size=(2, size, size, 3)).astype("float32")
    assert keras_saq.verify_litert(path, q, x).within_bounds


def test_any_batch_and_sequences_of_any_length(tmp_path):
    inputs = keras.Input((None, 16))
    x = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = np.repeat(VECTORS[:, None], 5, 1)
    q, path = exported(model, x, tmp_path)
    for steps in (3, 9):
        x = np.repeat(VECTORS[:2, None], steps, 1)
        expected = q.predict(x, verbose=0)
        assert np.abs(run(path, x) - expected).max() < 0.1


def test_models_for_batches_of_one_size(tmp_path):
    inputs = keras.Input(batch_shape=(4, 16))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    q, path = exported(model, VECTORS, tmp_path)
    assert keras_saq.verify_litert(path, q, VECTORS[:8]).reference_exact


# --- Names


def two_heads(outputs):
    inputs = keras.Input((16,), name="reading")
    x = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, outputs(x))


NAMES = {
    "dict": (
        lambda x: {"age": layers.Dense(1)(x), "sex": layers.Dense(2)(x)},
        {"age", "sex"},
    ),
    "layers": (
        lambda x: [
            layers.Dense(1, name="age")(x),
            layers.Dense(2, name="sex")(x),
        ],
        {"age", "sex"},
    ),
    "one": (lambda x: layers.Dense(1, name="age")(x), {"age"}),
    "island": (
        lambda x: {"lowest": ops.min(x, -1), "all": ops.sort(x, -1)},
        {"lowest", "all"},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_has_the_names_of_the_model(name, tmp_path):
    outputs, expected = NAMES[name]
    _, path = exported(two_heads(outputs), VECTORS, tmp_path)
    found = Interpreter(model_path=path).get_signature_list()
    signature = next(iter(found.values()))
    assert set(signature["outputs"]) == expected
    assert signature["inputs"] == ["reading"]


def test_a_signature_has_the_keys_of_the_inputs(tmp_path):
    given = {name: keras.Input((16,), name=name) for name in ("left", "right")}
    shared = layers.Dense(4)
    made = shared(given["left"]) + shared(given["right"])
    x = {"left": VECTORS, "right": VECTORS[::-1].copy()}
    q, path = exported(keras.Model(given, made), x, tmp_path)
    runner = Interpreter(model_path=path).get_signature_runner()
    made = next(iter(runner(**{k: v[:1] for k, v in x.items()}).values()))
    expected = q.predict({k: v[:1] for k, v in x.items()}, verbose=0)
    assert np.abs(made - expected).max() < 0.1
