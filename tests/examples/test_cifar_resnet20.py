"""The CIFAR example, from a float checkpoint to a file, on made-up images."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.search.test_cost import resnet20

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples/cifar_resnet20.py"

# Stands in for TensorFlow Datasets, which the tests do not need.
FAKE_TFDS = """
import tensorflow as tf

def load(name, split, batch_size):
    num = 300 if split == "train" else 40
    labels = tf.range(num, dtype=tf.int64) % 10
    noise = tf.random.stateless_uniform((num, 32, 32, 3), (1, 2)) * 100
    images = noise + tf.cast(labels[:, None, None, None] * 15, tf.float32)
    return {"image": tf.cast(images, tf.uint8), "label": labels}
"""


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
def folder(tmp_path):
    (tmp_path / "tensorflow_datasets.py").write_text(FAKE_TFDS)
    np.savez(tmp_path / "float.npz", **torch_parameters(resnet20(10)))
    return tmp_path


def run(folder, *args):
    import os

    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *args],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        timeout=600,
    )


def test_checkpoint_to_file(folder):
    result = run(
        folder,
        "--dataset=cifar10",
        "--checkpoint=float.npz",
        "--bits=w4a4",
        "--method=saq",
        "--scheme=litert",
        "--epochs=1",
        "--steps_per_epoch=2",
        "--eval_samples=40",
        "--export=m.tflite",
        "--results=results.jsonl",
    )
    assert result.returncode == 0, result.stderr
    assert "equal on all 400 outputs" in result.stdout
    (line,) = (folder / "results.jsonl").read_text().splitlines()
    results = json.loads(line)
    assert round(results["bops"] / 1e6, 2) == 674.28  # 10 classes, not 100
    assert results["file_bytes"] == (folder / "m.tflite").stat().st_size
    assert len(results["val_accuracy"]) == 1


def test_checkpoint_of_another_network(folder):
    np.savez(folder / "bad.npz", conv=np.zeros(3))
    result = run(folder, "--dataset=cifar10", "--checkpoint=bad.npz")
    assert result.returncode != 0
    assert "has no parameter 'conv.weight'" in result.stderr
