"""Fake quantization against an independent NumPy oracle."""

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_saq.quantizers.fake_quant import fake_quantize
from tests.quantizers import helpers

RANGES = [(-1, 1), (-2, 1), (0, 3), (-7, 7), (-8, 7), (0, 15), (-128, 127)]


def oracle(x, scale, qmin, qmax):
    """Equation 2 of LSQ, in float64."""
    return scale * np.rint(np.clip(x / scale, qmin, qmax))


def oracle_gradients(x, scale, qmin, qmax, dy):
    """Straight-through dx, and d(log s) = s * equation 3 of LSQ."""
    v = x / scale
    inside = (v >= qmin) & (v <= qmax)
    ds = np.where(inside, np.rint(v) - v, np.clip(v, qmin, qmax))
    axes = tuple(range(x.ndim - np.ndim(scale)))
    return dy * inside, (dy * ds * scale).sum(axis=axes)


def gradients(x, scale, qmin, qmax, dy):
    """Gradients of sum(dy * fake_quantize(x)), for x and log(scale)."""

    def loss(x, log_scale):
        y = fake_quantize(x, keras.ops.exp(log_scale), qmin, qmax)
        return keras.ops.sum(keras.ops.multiply(y, dy))

    return helpers.gradients(loss, x, np.log(np.float32(scale)))


def away_from_ties(x, scale, qmin, qmax):
    """Moves values that the last bit of float32 could round either way."""
    v = x / scale
    near = np.abs(np.abs(v - np.floor(v)) - 0.5) < 1e-3
    for edge in (qmin, qmax):
        near |= np.abs(v - edge) < 1e-3
    return np.where(near, (np.floor(v) + 0.25) * scale, x).astype("float32")


@pytest.mark.parametrize("qmin, qmax", RANGES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_forward_and_gradients_equal_the_oracle(qmin, qmax, per_channel):
    rng = np.random.default_rng(0)
    scale = (0.1 + rng.random(5)) if per_channel else np.float64(0.3)
    scale = np.float32(scale)
    x = rng.normal(size=(64, 5)).astype("float32") * 3 * scale
    x = away_from_ties(x, scale, qmin, qmax)
    dy = rng.normal(size=x.shape).astype("float32")
    y = helpers.numpy(fake_quantize(x, scale, qmin, qmax))
    np.testing.assert_allclose(
        y, oracle(x, scale, qmin, qmax), rtol=1e-5, atol=1e-6
    )
    dx, dlog = gradients(x, scale, qmin, qmax, dy)
    expected_dx, expected_dlog = oracle_gradients(x, scale, qmin, qmax, dy)
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_allclose(dlog, expected_dlog, rtol=1e-4, atol=1e-4)


finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
# Few sizes, since JAX compiles for each.
arrays = hnp.arrays(np.float32, st.sampled_from([1, 24]), elements=finite)
log_scales = st.floats(-8, 4, width=32)
properties = hypothesis.settings(deadline=None, max_examples=40)


@properties
@hypothesis.given(arrays, log_scales, st.sampled_from(RANGES))
def test_codes_stay_in_range_and_nothing_is_quantized_twice(x, log, limits):
    qmin, qmax = limits
    scale = np.exp(np.float32(log))
    y = helpers.numpy(fake_quantize(x, scale, qmin, qmax))
    codes = y / scale
    assert np.all(codes >= qmin - 1e-2) and np.all(codes <= qmax + 1e-2)
    np.testing.assert_allclose(codes, np.rint(codes), atol=2e-2)
    again = helpers.numpy(fake_quantize(y, scale, qmin, qmax))
    np.testing.assert_allclose(again, y, rtol=1e-6)


@properties
@hypothesis.given(arrays, arrays, log_scales, st.sampled_from(RANGES))
def test_gradients_equal_the_oracle_on_any_input(x, dy, log, limits):
    scale = np.exp(np.float32(log))
    x = away_from_ties(x, scale, *limits)
    dy = np.resize(dy, x.shape) / 1e4
    dx, dlog = gradients(x, scale, *limits, dy)
    expected_dx, expected_dlog = oracle_gradients(x, scale, *limits, dy)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-6, atol=1e-30)
    # Relative to the terms that are summed up, which may cancel.
    size = np.abs(dy * np.clip(x, limits[0] * scale, limits[1] * scale)).sum()
    np.testing.assert_allclose(
        dlog, expected_dlog, rtol=1e-4, atol=1e-4 * size + 1e-6
    )


@properties
@hypothesis.given(arrays, log_scales, st.sampled_from(RANGES))
def test_monotone(x, log, limits):
    x = np.sort(x)
    y = helpers.numpy(fake_quantize(x, np.exp(np.float32(log)), *limits))
    assert np.all(np.diff(y) >= 0)


@properties
@hypothesis.given(arrays, st.sampled_from(RANGES))
def test_scaling_input_and_scale_scales_the_output(x, limits):
    y = helpers.numpy(fake_quantize(x, np.float32(1.0), *limits))
    scaled = helpers.numpy(fake_quantize(4 * x, np.float32(4.0), *limits))
    # TensorFlow's kernel computes with a reciprocal: a tie may round apart.
    differs = np.abs(scaled - 4 * y) > 1e-3 * np.maximum(1, np.abs(y))
    ties = np.abs(x - np.floor(x) - 0.5) < 1e-3
    assert not np.any(differs & ~ties)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, -1e30])
def test_extreme_inputs_stay_finite(value):
    x = np.full((4, 3), value, "float32")
    dy = np.ones_like(x)
    for limits in RANGES:
        assert np.isfinite(helpers.numpy(fake_quantize(x, 1.0, *limits))).all()
        for gradient in gradients(x, 1.0, *limits, dy):
            assert np.isfinite(gradient).all()
