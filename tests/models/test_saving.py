"""Quantized models are saved, pickled, copied and renamed as any model is."""

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.layers import Quantized

pytestmark = pytest.mark.filterwarnings("ignore:.*stay in float")
X = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")


@keras.saving.register_keras_serializable("test_saving")
class OfItsOwn(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, activation="relu")
        self.head = layers.Dense(2)

    def call(self, inputs):
        return self.head(keras.ops.mean(self.conv(inputs), (1, 2)))


def functional():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(x + layers.Conv2D(4, 1)(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def sequential():
    return keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.ReLU()]
        + [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )


def attention():
    inputs = keras.Input((6, 6, 3))
    x = layers.Reshape((36, 3))(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(x, x))


def of_its_own():
    model = OfItsOwn()
    model(X)
    return model


def reads_itself():
    inputs = keras.Input((6, 6, 3))
    conv = layers.Conv2D(3, 3, padding="same")
    return keras.Model(inputs, conv(conv(conv(inputs))))


def nested_that_reads_itself():
    part = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    inputs = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, part(part(x)))


MODELS = (functional, sequential, attention, of_its_own, reads_itself)
MODELS += (nested_that_reads_itself,)


def saved(model, folder):
    model.save(folder / "m.keras")
    return keras.saving.load_model(folder / "m.keras")


COPIES = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "copy": lambda model, _: copy.copy(model),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "save": saved,
}


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_computes_the_same(make, how, tmp_path):
    q = keras_saq.quantize_model(make(), "w4a8", calibration=X)
    again = COPIES[how](q, tmp_path)
    assert type(again) is type(q) and again is not q
    for a, b in zip(q.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(q(X), again(X))


def test_layers_and_trainers_are_pickled():
    q = keras_saq.quantize_model(functional(), "w4a8", calibration=X)
    layer = pickle.loads(pickle.dumps(q.layers[-1]))
    assert isinstance(layer, Quantized) and layer.name == q.layers[-1].name
    saq = pickle.loads(pickle.dumps(keras_saq.SAQModel(q)))
    np.testing.assert_array_equal(saq.predict(X, verbose=0), q(X))


def test_a_pickle_is_read_by_another_process(tmp_path):
    q = keras_saq.quantize_model(functional(), "w4a8", calibration=X)
    (tmp_path / "q").write_bytes(pickle.dumps(q))
    program = (
        "import pickle, sys; q = pickle.load(open(sys.argv[1], 'rb')); "
        "print(type(q).__name__, q.count_params())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "q"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["QuantizedFunctional", str(q.count_params())]


@pytest.mark.parametrize("make", [functional, sequential, attention])
def test_a_clone_has_other_names(make):
    q = keras_saq.quantize_model(make(), "w4a8", calibration=X)

    def rename(layer):
        config = layer.get_config()
        config["name"] = f"{layer.name}_again"
        return type(layer).from_config(config)

    clone = keras.models.clone_model(q, clone_function=rename)
    names = [n.name for n in q.layers if "input" not in n.name]
    renamed = [n.name for n in clone.layers if "input" not in n.name]
    assert renamed == [f"{name}_again" for name in names]
    clone.set_weights(q.get_weights())
    np.testing.assert_array_equal(clone(X), q(X))


@pytest.mark.parametrize("make", [functional, of_its_own])
@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_the_legacy_format_is_refused(make, suffix, tmp_path):
    q = keras_saq.quantize_model(make(), "w4a8", calibration=X)
    path = tmp_path / f"q.{suffix}"
    path.write_text("an older file")
    for model in (q, keras_saq.SAQModel(q)):
        with pytest.raises(ValueError, match="cannot hold quantized layers"):
            model.save(path)
    assert path.read_text() == "an older file"


@pytest.mark.filterwarnings("ignore:.*HDF5 file")
def test_the_legacy_format_is_refused_of_parts_and_by_keras(tmp_path):
    q = keras_saq.quantize_model(functional(), "w4a8", calibration=X)
    part = keras.Model(q.inputs, q.layers[1].output)
    for model in (q, part):
        with pytest.raises(ValueError, match="cannot hold quantized layers"):
            keras.saving.save_model(model, tmp_path / "q.h5")
    q.save_weights(tmp_path / "q.weights.h5")
    keras_saq.SAQModel(functional()).save_weights(tmp_path / "f.weights.h5")
