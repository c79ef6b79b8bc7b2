import numpy as np
import pytest

from keras_saq.quantizers import LIQ
from keras_saq.quantizers import check_role
from keras_saq.quantizers import get
from tests.quantizers import helpers


def oracle(x, c, num_bits, standardize):
    """Values and the gradients for x and c, as in the released code."""
    n = 2**num_bits - 1
    x = x.astype("float64")
    deviation = x.std(ddof=1) if standardize else 1.0
    v = (x - x.mean()) / deviation if standardize else x
    u = np.clip(v / c, -1, 1)
    q = np.rint((u + 1) / 2 * n) / n
    dx = (np.abs(v) <= c) / deviation
    dc = (2 * q - 1) - u * (np.abs(u) < 1)
    return (2 * q - 1) * c, dx, dc


@pytest.mark.parametrize("num_bits", [2, 3, 8])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("c", [0.8, 1.7])
def test_forward_and_gradients_equal_the_oracle(num_bits, standardize, c):
    rng = np.random.default_rng(0)
    x = rng.normal(0.02, 1.0 - 0.9 * standardize, 200).astype("float32")
    dy = rng.normal(size=x.shape).astype("float32")
    quantizer = LIQ(num_bits, standardize=standardize)
    quantizer.build(x.shape)
    quantizer.set_scale(c / quantizer.qmax)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.clip)), c, rtol=1e-6
    )
    y, dx, dc = oracle(x, c, num_bits, standardize)
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), y, atol=1e-5)
    found, others = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_allclose(found, dy * dx, rtol=1e-5)
    np.testing.assert_allclose(
        others["log_scale"], (dy * dc).sum() * c, rtol=1e-3, atol=1e-3
    )


def test_statistics_are_those_of_a_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype("float32")
    quantizer = LIQ(3, channel_axes=(-1,))
    quantizer.initialize(x)
    for channel in range(3):
        single = LIQ(3)
        single.initialize(x[:, channel])
        np.testing.assert_allclose(
            helpers.numpy(quantizer(x))[:, channel],
            helpers.numpy(single(x[:, channel])),
            rtol=1e-5,
        )


@pytest.mark.parametrize("num_bits", range(2, 8))
def test_codes_are_exact_odd_integers(num_bits):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    quantizer = LIQ(num_bits, channel_axes=(-1,))
    quantizer.initialize(x)
    codes = quantizer.codes(x)
    n = 2**num_bits - 1
    assert np.all(codes % 2 == 1) and np.abs(codes).max() <= n <= 127
    assert quantizer.code_bits == num_bits + 1
    assert quantizer.export_obstacle is None
    np.testing.assert_array_equal(
        codes.astype("float32") * helpers.numpy(quantizer.scale),
        helpers.numpy(quantizer(x)),
    )


def test_eight_bits_cannot_be_exported():
    assert "7" in LIQ(8).export_obstacle


def test_the_authors_start():
    x = np.float32([-2.0, 0.5, 1.0])
    for standardize, c in ((True, 1.0), (False, 1.6)):
        quantizer = LIQ(4, standardize=standardize, initial_scale="authors")
        quantizer.initialize(x)
        np.testing.assert_allclose(
            float(helpers.numpy(quantizer.clip)), c, rtol=1e-6
        )


def test_mse_start_is_on_the_grid_without_zero():
    # Two values and two levels beside zero: no error at all.
    x = np.float32([-0.5, 0.5] * 4)
    quantizer = LIQ(2, standardize=False)
    quantizer.initialize(x)
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), x, atol=1e-6)


def test_it_is_for_weights():
    with pytest.raises(ValueError, match='"lsq"'):
        check_role(LIQ(4), "activations")
    assert get("liq", num_bits=4, signed=True, narrow_range=True).signed
