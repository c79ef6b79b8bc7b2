import numpy as np
import pytest

from keras_saq.quantizers import DoReFa
from keras_saq.quantizers import check_role
from tests.quantizers import helpers


@pytest.mark.parametrize("num_bits", [2, 3, 8])
@pytest.mark.parametrize("axes", [(), (-1,)])
def test_weights_equal_the_oracle(num_bits, axes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype("float32")
    dy = rng.normal(size=x.shape).astype("float32")
    quantizer = DoReFa(num_bits, channel_axes=axes)
    y = helpers.numpy(quantizer(x))
    reduced = (0,) if axes else (0, 1)

    n = 2**num_bits - 1
    t = np.tanh(x.astype("float64"))
    largest = np.abs(t).max(reduced, keepdims=True)
    expected = 2 / n * np.rint(n * (t / (2 * largest) + 0.5)) - 1
    np.testing.assert_allclose(y, expected, atol=1e-6)
    codes = quantizer.codes(x)
    assert np.all(codes % 2 == 1) and np.abs(codes).max() == n
    np.testing.assert_allclose(codes / n, expected, atol=1e-6)

    def surrogate(x):
        t = np.tanh(x)
        return (dy * t / np.abs(t).max(reduced, keepdims=True)).sum()

    dx, _ = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_allclose(
        dx, helpers.differences(surrogate, x), rtol=1e-3, atol=1e-4
    )


def test_activations_equal_the_oracle():
    quantizer = DoReFa(2, signed=False)
    x = np.float32([-0.5, 0.0, 0.1, 0.4, 0.9, 1.0, 3.0])
    dy = np.arange(1.0, 8.0, dtype="float32")
    expected = np.float32([0, 0, 0, 1, 3, 3, 3]) / 3
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), expected)
    dx, _ = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(dx, dy * [0, 1, 1, 1, 1, 1, 0])
    assert (quantizer.qmin, quantizer.qmax, quantizer.code_bits) == (0, 3, 2)


def test_signed_is_for_weights_and_unsigned_for_activations():
    check_role(DoReFa(4, signed=True), "weights")
    for signed in (False, None):
        check_role(DoReFa(4, signed=signed), "activations")
    with pytest.raises(ValueError, match="signed=True.*lsq"):
        check_role(DoReFa(4, signed=True), "activations")
    with pytest.raises(ValueError, match="signed=False"):
        check_role(DoReFa(4, signed=False), "weights")


def test_codes_of_weights_need_one_more_bit():
    quantizer = DoReFa(7)
    assert (quantizer.qmin, quantizer.qmax) == (-127, 127)
    assert quantizer.code_bits == 8 and quantizer.export_obstacle is None
    assert "8 bits" in DoReFa(8).export_obstacle
    assert DoReFa(8, signed=False).export_obstacle is None
