"""AdaRound's formulas against NumPy."""

import numpy as np
import pytest
from keras import ops

from keras_saq.reconstruction import rounding

RANDOM = np.random.default_rng(0)
SCALE = np.float32([[0.1, 0.3, 0.02]])
WEIGHT = (RANDOM.normal(size=(40, 3)) * 4 * SCALE).astype("float32")


def h(v):
    v = np.asarray(v, "float64")
    return np.clip(1.2 / (1 + np.exp(-v)) - 0.1, 0, 1)


def test_it_starts_at_the_weight_itself():
    v = rounding.initial(WEIGHT, SCALE)
    soft = ops.convert_to_numpy(
        rounding.soft_weight(WEIGHT, SCALE, v, -100, 100)
    )
    np.testing.assert_allclose(soft, WEIGHT, atol=1e-5)


def test_soft_weights():
    v = RANDOM.normal(size=WEIGHT.shape).astype("float32") * 3
    soft = rounding.soft_weight(WEIGHT, SCALE, v, -7, 7)
    expected = SCALE * np.clip(np.floor(WEIGHT / SCALE) + h(v), -7, 7)
    np.testing.assert_allclose(
        ops.convert_to_numpy(soft), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("exponent", [20.0, 7.3, 2.0])
def test_regularizer(exponent):
    v = RANDOM.normal(size=(50,)).astype("float32") * 3
    expected = (1 - np.abs(2 * h(v) - 1) ** exponent).sum()
    found = float(rounding.regularizer(v, exponent))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_schedule():
    """BRECQ's `LinearTempDecay`, with its warm-up."""
    steps = 250
    for step in range(steps):
        if step < 0.2 * steps:
            assert rounding.schedule(step, steps) == (20.0, 0.0)
            continue
        relative = (step - 0.2 * steps) / (steps - 0.2 * steps)
        b, share = rounding.schedule(step, steps)
        assert share == 1.0
        np.testing.assert_allclose(b, 2 + 18 * max(0.0, 1 - relative))


def test_stored_weights_have_the_learned_codes():
    v = RANDOM.normal(size=WEIGHT.shape).astype("float32") * 3
    codes = rounding.learned_codes(WEIGHT, SCALE, v, -7, 7)
    expected = np.clip(np.floor(WEIGHT / SCALE) + (h(v) >= 0.5), -7, 7)
    np.testing.assert_array_equal(codes, expected)
    stored = rounding.stored_weight(WEIGHT, SCALE, codes)
    np.testing.assert_array_equal(
        np.clip(np.rint(stored / SCALE), -7, 7), codes
    )
    # What was rounded so anyway stays, and nothing moves by more than a step.
    inside = np.abs(WEIGHT / SCALE - codes) < 0.45
    np.testing.assert_allclose(stored[inside], WEIGHT[inside], rtol=1e-5)
    clipped = np.clip(WEIGHT / SCALE, -7.5, 7.5)
    assert np.abs(stored / SCALE - clipped).max() <= 1
