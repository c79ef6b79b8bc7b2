"""The bytes that a search promises are those of the file."""

import keras
import numpy as np
import pytest

import keras_saq


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["0.75x w8a8", "w4a8"])
def test_mobilenet(budget, tmp_path):
    model = keras.applications.MobileNetV2(
        weights=None, classes=1000, input_shape=(64, 64, 3)
    )
    x = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    policy = keras_saq.search_policy(
        model,
        (x, np.arange(4)),
        keras_saq.Budget(bytes=budget),
        "random",
        target="litert",
    )
    found = policy.provenance
    q = keras_saq.quantize_model(model, policy, calibration=x)
    report = q.export(tmp_path / "m.tflite", format="litert")
    assert found["cost"]["bytes"] <= found["limits"]["bytes"]
    assert report.file_bytes == pytest.approx(found["cost"]["bytes"], rel=0.02)
