"""The CIFAR example, from a float checkpoint to a file, on made-up images."""

import json
import sys
import types

import keras
import numpy as np
import pytest
from absl import app

import keras_saq
from tests.examples.runner import example
from tests.examples.runner import run
from tests.search.test_cost import resnet20


def torch_parameters(model):
    """The model's weights under PyTorch's names and in its layouts."""
    names = {"gamma": "weight", "beta": "bias", "kernel": "weight"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    arrays = {}
    for layer in model.layers:
        for variable in layer.variables:
            value = variable.numpy()
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            elif value.ndim == 2:
                value = value.T
            key = names.get(variable.name, variable.name)
            arrays[f"{layer.name}.{key}"] = value
    return arrays


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.savez(tmp_path / "float.npz", **torch_parameters(resnet20(10)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_checkpoint_to_file(folder, capsys):
    run(
        "cifar_resnet20",
        "--smoke",
        "--dataset=cifar10",
        "--checkpoint=float.npz",
        "--bits=w4a4",
        "--method=saq",
        "--scheme=litert",
        "--save=m.keras",
        "--export=m.tflite",
        "--results=results.jsonl",
    )
    assert "equal on all 400 outputs" in capsys.readouterr().out
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    results = json.loads(line)
    assert round(results["bops"] / 1e6, 2) == 674.28  # 10 classes, not 100
    assert results["file_bytes"] == (folder / "m.tflite").stat().st_size
    assert len(results["val_accuracy"]) == 1
    saved = keras.saving.load_model("m.keras", compile=False)
    assert isinstance(saved, keras_saq.SAQModel)


def test_images_of_the_data_set_are_normalised(monkeypatch):
    """A stand-in for TensorFlow Datasets, which the tests do not need."""
    import tensorflow as tf

    def load(name, split, batch_size):
        assert (name, split, batch_size) == ("cifar10", "test", -1)
        images = tf.fill((20, 32, 32, 3), tf.constant(255, tf.uint8))
        return {"image": images, "label": tf.range(20, dtype=tf.int64)}

    tfds = types.SimpleNamespace(load=load)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    with example("cifar_resnet20", "--dataset=cifar10") as module:
        images, labels = module.load_data("test")
    assert images.shape == (20, 32, 32, 3) and images.dtype == np.float32
    np.testing.assert_allclose(images[0, 0, 0, 0], (1 - 0.4914) / 0.2470)
    assert labels.tolist() == list(range(20))


def test_checkpoint_of_another_network(folder):
    np.savez(folder / "bad.npz", conv=np.zeros(3))
    with pytest.raises(ValueError, match="has no parameter 'conv.weight'"):
        run("cifar_resnet20", "--dataset=cifar10", "--checkpoint=bad.npz")


def test_a_file_is_refused_before_the_training():
    with pytest.raises(app.UsageError, match="--scheme=litert"):
        run("cifar_resnet20", "--smoke", "--export=m.tflite")
