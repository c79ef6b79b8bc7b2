"""Export and verification from every backend, without TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# In a fresh process in which TensorFlow cannot be imported.
SCRIPT = """
import sys
sys.modules["tensorflow"] = None
import keras, keras_saq
from tests import networks
x, _ = networks.images(16)
model = networks.residual_network()
model = keras_saq.quantize_model(model, "w4a8", calibration=x)
path = sys.argv[1]
keras_saq.export_litert(
    model, path, storage="small", verify=x, require_exact=True
)
report = keras_saq.verify_litert(path, model, x, per_layer=True)
assert report.reference_exact and report.first_deviation is None
assert sum(row.exact is not None for row in report.layers) > 8
assert keras_saq.inspect_litert(path).undelegated == ()
print(keras.backend.backend())
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_export_without_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "m.tflite")],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == backend
