import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from keras_saq import QuantizeConfig
from keras_saq.interop.tfmot import to_tfmot
from keras_saq.quantizers import LSQ

FOLDER = pathlib.Path(__file__).parent
needs_tfmot = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None,
    reason="TensorFlow Model Optimization is not installed",
)


def run(*args, backend="tensorflow"):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        env=environment,
        cwd=FOLDER.parents[1],
        timeout=600,
    )


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def results(request):
    """What the program found that works with TFMOT."""
    result = run("-m", "tests.interop.tfmot_script", backend=request.param)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@needs_tfmot
def test_forward_equals_our_quantizer(results):
    training = results["training"]
    for what in ("kernel", "depthwise"):
        assert training[f"{what}_training"] <= 1e-6
        assert training[f"{what}_inference"] <= 1e-6
    assert training["layer"] <= 1e-6


@needs_tfmot
def test_a_training_step_moves_every_scale(results):
    training = results["training"]
    assert len(training["moved"]) == 6
    assert min(training["moved"].values()) >= 0.5  # a dead filter stays
    smallest, largest = training["second_steps"]
    assert 0 < smallest <= largest < 1


@needs_tfmot
def test_scales_come_from_weights_and_from_the_first_batch(results):
    training = results["training"]
    assert training["states_before"] == [0, 0, 0, 2, 2, 2]
    states = training["states_after"]
    assert states.pop("quant_conv/output_state:0") == 1  # after a ReLU
    assert set(states.values()) == {2}


@needs_tfmot
def test_the_model_is_saved_and_loaded(results):
    assert results["training"]["loaded"] == 0


@needs_tfmot
def test_the_converter_makes_an_integer_file(results):
    file = results["file"]
    assert file["steps_off"] <= 1.01
    assert file["int8"] >= 8
    assert file["float"] == 2  # the input and the output


@needs_tfmot
def test_a_scale_is_taken_along(results):
    assert results["carried_scale"] <= 1e-6


@needs_tfmot
def test_quantizers_of_tfmot_compute_the_same_here(results):
    different = results["numerics"]  # by quantizer, of 14 000 values
    assert len(different) == 5 + 2 + 4
    assert max(different.values()) <= 5, different


@needs_tfmot
def test_configs_for_tfmot_on_keras_3_layers(results):
    read = results["from_tfmot"]
    assert read["user"] == [["kernel"], [4, True, [-1]], [8, False]]
    assert read["default"] == [["kernel"], [8, True, [-1]], [8, False]]
    assert read["applied"] == [4, 8]


def test_tfmot_is_imported_only_when_used():
    code = (
        "import sys, keras_saq, keras_saq.interop.tfmot as interop\n"
        "import keras_saq.interop.learned_scale\n"
        "print('tensorflow_model_optimization' in sys.modules)\n"
        "sys.modules['tensorflow_model_optimization'] = None\n"
        "interop.to_tfmot(keras_saq.QuantizeConfig())"
    )
    result = run("-c", code)
    assert result.stdout.split() == ["False"]
    assert result.returncode == 1
    assert "pip install 'keras-saq[tfmot]'" in result.stderr


class OwnMethods(QuantizeConfig):
    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, LSQ(4))]


class OwnQuantizer(LSQ):
    pass


@pytest.mark.parametrize(
    "config, message",
    [
        ("w4a8", "takes a `keras_saq.QuantizeConfig`.*of type str"),
        (OwnMethods(), "OwnMethods with methods of its own"),
        (QuantizeConfig(inputs=LSQ(8)), "`inputs`: .* `outputs` quantizer"),
        (QuantizeConfig(logits=LSQ(8), bias_grid=True), "`logits`.*bias_grid"),
        (QuantizeConfig({"kernel": OwnQuantizer(4)}), "weight 'kernel'.*Own"),
        (
            QuantizeConfig(
                {"kernel": LSQ(4, channel_axes=(-1,), group_size=2)}
            ),
            "without `group_size`",
        ),
    ],
)
def test_what_tfmot_cannot_do_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        to_tfmot(config)
