import keras
import numpy as np
import pytest

from keras_saq.quantizers import PowerOfTwo
from keras_saq.quantizers.fake_quant import two_to_the
from tests.quantizers import helpers


def test_powers_are_exact():
    exponents = np.arange(-100, 101).astype("float32")
    expected = np.ldexp(np.float32(1.0), np.arange(-100, 101))
    powers = helpers.numpy(
        two_to_the(keras.ops.convert_to_tensor(exponents + 0.3))
    )
    np.testing.assert_array_equal(powers, expected)
    beyond = helpers.numpy(
        two_to_the(keras.ops.convert_to_tensor([-500.0, 500.0]))
    )
    np.testing.assert_array_equal(beyond, expected[[0, -1]])


@pytest.mark.parametrize("axes", [(), (-1,)])
def test_forward_and_gradients_equal_the_oracle(axes):
    rng = np.random.default_rng(0)
    scale = np.float32([0.3, 0.7, 1.0]) if axes else np.float32(0.3)
    quantizer = PowerOfTwo(4, channel_axes=axes)
    quantizer.build((60, 3))
    quantizer.set_scale(scale)
    rounded = 2.0 ** np.rint(np.log2(scale))
    np.testing.assert_array_equal(helpers.numpy(quantizer.scale), rounded)
    v = rng.integers(-11, 11, (60, 3)) + rng.uniform(-0.4, 0.4, (60, 3))
    x = (v * rounded).astype("float32")
    dy = rng.normal(size=x.shape).astype("float32")
    code = np.rint(np.clip(v, -8, 7))
    inside = (v >= -8) & (v <= 7)
    np.testing.assert_array_equal(helpers.numpy(quantizer(x)), code * rounded)
    dx, others = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(dx, dy * inside)
    # Straight through the rounding: d(2^k) / d(log s) = 2^k.
    ds = dy * np.where(inside, code - v, code) * rounded
    np.testing.assert_allclose(
        others["log_scale"], ds.sum(0 if axes else None), rtol=1e-4, atol=1e-4
    )
