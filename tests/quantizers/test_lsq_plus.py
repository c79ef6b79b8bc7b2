import numpy as np
import pytest

from keras_saq.quantizers import LSQPlus
from keras_saq.quantizers import check_role
from tests.quantizers import helpers


def make(num_bits, signed, scale, offset, shape=()):
    quantizer = LSQPlus(
        num_bits, signed, channel_axes=(-1,) if np.ndim(scale) else ()
    )
    quantizer.build(shape)
    quantizer.set_scale(scale)
    quantizer.offset.assign(offset)
    return quantizer


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_forward_and_gradients_equal_the_oracle(signed, per_channel):
    rng = np.random.default_rng(0)
    scale, offset = np.float32(0.3), np.float32(-0.25)
    if per_channel:
        scale = scale * (1 + rng.random(5).astype("float32"))
        offset = rng.normal(size=5).astype("float32")
    quantizer = make(3, signed, scale, offset, (64, 5))
    qmin, qmax = quantizer.qmin, quantizer.qmax
    # Off the ties, by construction.
    v = rng.integers(qmin - 3, qmax + 4, (64, 5))
    v = v + rng.uniform(-0.4, 0.4, v.shape)
    x = (v * scale + offset).astype("float32")
    dy = rng.normal(size=x.shape).astype("float32")

    code = np.rint(np.clip(v, qmin, qmax))
    inside = (v >= qmin) & (v <= qmax)
    np.testing.assert_allclose(
        helpers.numpy(quantizer(x)), code * scale + offset, atol=1e-5
    )
    np.testing.assert_array_equal(quantizer.codes(x), code)
    dx, others = helpers.quantizer_gradients(quantizer, x, dy)
    axes = 0 if per_channel else None
    np.testing.assert_array_equal(dx, dy * inside)
    np.testing.assert_allclose(
        others["offset"], (dy * ~inside).sum(axes), rtol=1e-4, atol=1e-4
    )
    ds = dy * np.where(inside, code - v, code)
    np.testing.assert_allclose(
        others["log_scale"], (ds * scale).sum(axes), rtol=1e-3, atol=1e-4
    )


def test_calibration_finds_an_asymmetric_range():
    x = np.linspace(-0.25, 2.75, 100, dtype="float32")
    for rule in LSQPlus.initial_scales:
        quantizer = LSQPlus(8, signed=None, initial_scale=rule)
        quantizer.initialize(x)
        y = helpers.numpy(quantizer(x))
        assert np.abs(y - x).max() < 3.0 / 255, rule
    with pytest.raises(ValueError, match="initial_scale.*'lsq'"):
        LSQPlus(8, initial_scale="lsq")


def test_outliers_shrink_the_range():
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 0.1, 2000).astype("float32")
    x[0], x[1] = -6.0, 8.0

    def error(rule):
        quantizer = LSQPlus(3, signed=None, initial_scale=rule)
        quantizer.initialize(x)
        return np.square(helpers.numpy(quantizer(x)) - x)[2:].mean()

    assert error("percentile") < error("minmax") / 4


def test_it_is_for_activations_and_not_exported():
    quantizer = LSQPlus(4)
    assert "offset" in quantizer.export_obstacle
    with pytest.raises(ValueError, match="three_sigma"):
        check_role(quantizer, "weights")
