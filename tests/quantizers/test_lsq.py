import keras
import numpy as np
import pytest

from keras_saq.quantizers import LSQ
from keras_saq.quantizers import calibration_scope
from keras_saq.quantizers.initial_scale import RULES
from keras_saq.quantizers.initial_scale import initial_scale
from tests.quantizers import helpers


@pytest.mark.parametrize(
    "bits, signed, narrow, limits",
    [
        (2, True, True, (-1, 1)),
        (4, True, True, (-7, 7)),
        (4, True, False, (-8, 7)),
        (4, False, False, (0, 15)),
        (8, True, False, (-128, 127)),
        (8, None, False, (-128, 127)),
    ],
)
def test_range(bits, signed, narrow, limits):
    quantizer = LSQ(bits, signed=signed, narrow_range=narrow)
    assert (quantizer.qmin, quantizer.qmax) == limits


@pytest.mark.parametrize("bits", [1, 9, 0, -4, 2.5, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="num_bits"):
        LSQ(bits)


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="initial_scale.*'best'"):
        LSQ(4, initial_scale="best")
    for axes in ((0,), (-1, -1), (1, -1)):
        with pytest.raises(ValueError, match="counted from the last"):
            LSQ(4, channel_axes=axes)


def test_sign_is_found_in_the_data():
    for low, signed in ((0.0, False), (-1.0, True)):
        quantizer = LSQ(8, signed=None)
        quantizer.initialize(np.linspace(low, 1, 9, dtype="float32"))
        assert quantizer.signed is signed


def test_calibration_scope_initialises_once():
    quantizer = LSQ(8, initial_scale="minmax")
    x = np.linspace(-1, 1, 9, dtype="float32")
    quantizer.build(x.shape)
    assert not quantizer.calibrated
    with calibration_scope():
        quantizer(x)
        first = float(helpers.numpy(quantizer.scale))
        quantizer(10 * x)
    assert quantizer.calibrated
    assert float(helpers.numpy(quantizer.scale)) == first
    np.testing.assert_allclose(first, 1 / 127, rtol=1e-6)


def test_codes_are_those_of_the_forward_pass():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, 4, 6)).astype("float32")
    quantizer = LSQ(4, narrow_range=True, channel_axes=(-1,))
    quantizer.initialize(w)
    codes = quantizer.codes(w).astype("float32")
    expected = codes * keras.ops.convert_to_numpy(quantizer.scale)
    np.testing.assert_array_equal(helpers.numpy(quantizer(w)), expected)
    assert quantizer.scale.shape == (6,)


def test_depthwise_scales_have_two_axes():
    quantizer = LSQ(4, narrow_range=True, channel_axes=(-2, -1))
    quantizer.initialize(np.ones((3, 3, 4, 2), "float32"))
    assert tuple(quantizer.scale.shape) == (4, 2)


def test_config_round_trip():
    quantizer = LSQ(3, signed=False, channel_axes=(-1,), initial_scale="lsq")
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(quantizer)
    )
    assert copy.get_config() == quantizer.get_config()


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize(
    "values",
    [np.zeros(8), np.full(8, 1e-30), np.full(8, 1e30), np.ones(1), -np.ones(3)],
)
def test_initial_scales_are_positive_and_finite(rule, values):
    for limits in ((-1, 1), (0, 15), (-128, 127)):
        (scale,) = initial_scale(values[None], *limits, rule)
        assert np.isfinite(scale) and scale > 0


def test_mse_is_no_worse_than_minmax_and_lsq():
    rng = np.random.default_rng(0)
    groups = rng.standard_t(3, size=(5, 2000))

    def error(scale):
        codes = np.rint(np.clip(groups / scale[:, None], -7, 7))
        return np.square(codes * scale[:, None] - groups).mean(axis=1)

    best = error(initial_scale(groups, -7, 7, "mse"))
    for rule in ("minmax", "lsq"):
        assert (best <= error(initial_scale(groups, -7, 7, rule)) * 1.01).all()


def test_lsq_rule():
    groups = np.array([[1.0, -2.0, 3.0]])
    expected = 2 * 2.0 / np.sqrt(7)
    np.testing.assert_allclose(initial_scale(groups, -7, 7, "lsq"), expected)


def test_data_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        LSQ(8).initialize(np.array([1.0, np.nan], "float32"))
