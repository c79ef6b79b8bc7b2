"""Files of models that other quantizers than LSQ were used for."""

import numpy as np
import pytest

import keras_saq
from tests import networks


def trained(weights="lsq", activations="lsq", bits="w4a8"):
    policy = keras_saq.QuantizePolicy.preset(
        bits, weight_quantizer=weights, activation_quantizer=activations
    )
    x, _ = networks.images()
    q = keras_saq.quantize_model(
        networks.residual_network(), policy, calibration=x
    )
    return networks.fit(q, epochs=1), x


@pytest.mark.parametrize(
    "weights, activations",
    [
        ("power_of_two", "power_of_two"),
        ("rand", "pact"),
        ("noise_tempering", "moving_average"),
        ("nipq", "nipq"),
    ],
)
@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_the_file_equals_the_reference(tmp_path, weights, activations):
    q, x = trained(weights, activations)
    path = tmp_path / "m.tflite"
    keras_saq.export_litert(q, path)
    report = keras_saq.verify_litert(path, q, x)
    assert report.reference_exact
    assert report.top1_agreement > 0.9


@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_odd_codes_take_one_more_bit(tmp_path):
    """LIQ has no level at zero: its codes are odd, and exact."""
    q, x = trained("liq")
    path = tmp_path / "m.tflite"
    with pytest.raises(ValueError, match="conv2d .*(bits|zero)"):
        # First and last layers have eight bits, which would need nine.
        keras_saq.export_litert(q, path)
    assert not path.exists()
    policy = keras_saq.QuantizePolicy.preset(
        "w4a8", weight_quantizer="liq", first_last_bits=4
    )
    q = keras_saq.quantize_model(
        networks.residual_network(), policy, calibration=x
    )
    networks.fit(q, epochs=1)
    for layer in q.layers:
        if getattr(layer, "weight_names", None):
            codes = layer.kernel_quantizer.codes(layer.kernel)
            assert (np.abs(codes) % 2 == 1).all() and np.abs(codes).max() <= 15
    keras_saq.export_litert(q, path)
    assert keras_saq.verify_litert(path, q, x).reference_exact


@pytest.mark.parametrize(
    "quantizers, reason",
    [({"weights": "lcq"}, "codebook"), ({"activations": "lsq_plus"}, "offset")],
)
@pytest.mark.filterwarnings("ignore:Much of these kernels")
def test_what_no_integer_kernel_can_read_is_refused(
    tmp_path, quantizers, reason
):
    q, _ = trained(**quantizers)
    with pytest.raises(ValueError, match=reason):
        keras_saq.export_litert(q, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())
