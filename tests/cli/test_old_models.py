"""Files of Keras 2, and what the page about them says."""

import json
import re

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_saq
from keras_saq.cli import files
from tests.cli.commands import run
from tests.docs.pages import DOCS

pytestmark = pytest.mark.filterwarnings("ignore:.*HDF5 file")

# As Keras 2.13 writes it.
_DEPTHWISE = {
    **{"name": "dw", "trainable": True, "dtype": "float32"},
    **{"kernel_size": [3, 3], "strides": [1, 1], "padding": "valid"},
    **{"data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1},
    **{"activation": "linear", "use_bias": True, "depth_multiplier": 1},
    "depthwise_initializer": {
        "class_name": "GlorotUniform",
        "config": {"seed": None},
    },
    "bias_initializer": {"class_name": "Zeros", "config": {}},
}
_EMBEDDING = {
    **{"name": "em", "trainable": True, "dtype": "float32"},
    **{"input_dim": 9, "output_dim": 4, "mask_zero": False, "input_length": 5},
    "embeddings_initializer": {
        "class_name": "RandomUniform",
        "config": {"minval": -0.05, "maxval": 0.05, "seed": None},
    },
}
_FLATTEN = {"name": "fl", "trainable": True, "dtype": "float32"}


def page_functions():
    """What the page's blocks define."""
    text = (DOCS / "howto" / "old_models.md").read_text("utf-8")
    first = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    names = {}
    exec(first, names)
    return names


def input_layer(shape):
    config = {"batch_input_shape": shape, "dtype": "float32", "name": "input_1"}
    config |= {"sparse": False, "ragged": False}
    return {
        **{"class_name": "InputLayer", "config": config},
        **{"name": "input_1", "inbound_nodes": []},
    }


def call(class_name, config, reads):
    return {
        **{"class_name": class_name, "config": config, "name": config["name"]},
        "inbound_nodes": [[[reads, 0, 0, {}]]],
    }


def write_old(model, path, entries, kind="Functional"):
    """The weights of a model, with a configuration as Keras 2 wrote it."""
    model.save(path)
    config = {"name": "old", "layers": entries}
    if kind == "Functional":
        config["input_layers"] = [["input_1", 0, 0]]
        config["output_layers"] = [[entries[-1]["name"], 0, 0]]
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(
            {"class_name": kind, "config": config}
        )
        file.attrs["keras_version"] = "2.13.1"


def depthwise_file(path):
    inputs = keras.Input((6, 6, 3), name="input_1")
    model = keras.Model(inputs, layers.DepthwiseConv2D(3, name="dw")(inputs))
    entries = [input_layer([None, 6, 6, 3])]
    write_old(
        model, path, [*entries, call("DepthwiseConv2D", _DEPTHWISE, "input_1")]
    )
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
    return model, x, None


def embedding_model():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, name="em")(inputs)
    model = keras.Model(inputs, layers.Flatten(name="fl")(x))
    return model, np.random.default_rng(0).integers(0, 9, (16, 5))


def float_indices_file(path, shape=(None, 5)):
    model, x = embedding_model()
    entries = [
        input_layer(list(shape)),
        call("Embedding", _EMBEDDING, "input_1"),
    ]
    write_old(model, path, [*entries, call("Flatten", _FLATTEN, "em")])
    return model, x, None


def fixed_batch_file(path):
    return float_indices_file(path, (8, 5))


def no_batch_axis_file(path):
    return *float_indices_file(path, (5,))[:2], {"input_1": (5,)}


def no_input_layer_file(path):
    model, x = embedding_model()
    first = {**_EMBEDDING, "batch_input_shape": [None, 5]}
    entries = [{"class_name": "Embedding", "config": first}]
    entries += [{"class_name": "Flatten", "config": _FLATTEN}]
    write_old(model, path, entries, "Sequential")
    return model, x, None


FILES = {
    "depthwise": depthwise_file,
    "float indices": float_indices_file,
    "fixed batch": fixed_batch_file,
    "no batch axis": no_batch_axis_file,
    "no input layer": no_input_layer_file,
}


@pytest.mark.parametrize("name", FILES)
def test_a_mended_file_is_the_model_and_is_quantized(name, tmp_path, capsys):
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    model, x, shapes = FILES[name](old)
    page_functions()["mend"](old, new, shapes)
    again = files.load_model(new)
    assert again.input_shape == (None, *model.input_shape[1:])
    assert again.inputs[0].dtype == model.inputs[0].dtype
    np.testing.assert_array_equal(again(x), model(x))
    np.save(tmp_path / "x.npy", x.astype(model.inputs[0].dtype))
    args = ("quantize", new, tmp_path / "q.keras", "--policy=w8a8")
    code, _, err = run(capsys, *args, f"--calibration={tmp_path / 'x.npy'}")
    assert code == 0, err
    q = keras.saving.load_model(tmp_path / "q.keras")
    report = keras_saq.export_litert(q, tmp_path / "q.tflite")
    expected = "INT32" if x.dtype.kind == "i" else "FLOAT32"
    assert report.inputs[0].type == expected


@pytest.mark.parametrize("name", ["depthwise"])
def test_what_keras_refuses_leads_to_the_page(name, tmp_path):
    FILES[name](tmp_path / "old.h5")
    with pytest.raises(ValueError, match="docs/howto/old_models.md"):
        files.load_model(tmp_path / "old.h5")


def test_a_module_can_take_the_old_configuration(tmp_path, monkeypatch, capsys):
    _, x, _ = depthwise_file(tmp_path / "old.h5")
    np.save(tmp_path / "x.npy", x)
    text = (DOCS / "howto" / "old_models.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = [b for b in blocks if "OldDepthwise" in b]
    (tmp_path / "old_classes.py").write_text(f"import keras\n{block}")
    monkeypatch.chdir(tmp_path)
    args = ("quantize", "old.h5", "q.keras", "--import=old_classes")
    try:
        code, _, err = run(capsys, *args, "--calibration=x.npy")
    finally:
        keras.saving.get_custom_objects().pop("DepthwiseConv2D", None)
    assert code == 0, err
