import numpy as np
import pytest

from keras_saq.quantizers import LCQ
from keras_saq.quantizers import LSQ
from tests.quantizers import helpers


def compressor(theta):
    """g and its inverse, by interpolation between the ends of intervals.

    The outer intervals go on beyond 0 and 1, where differences may look.
    """
    slopes = np.exp(theta) / np.exp(theta).sum()
    slopes = np.concatenate([slopes[:1], slopes, slopes[-1:]])
    heights = np.concatenate([[0.0], np.cumsum(slopes)]) - slopes[0]
    width = 1 / len(theta)
    ends = np.linspace(-width, 1 + width, len(theta) + 3)
    return (
        lambda v: np.interp(v, ends, heights),
        lambda u: np.interp(u, heights, ends),
    )


def oracle(x, alpha, theta, n, unsigned=False):
    g, inverse = compressor(theta.astype("float64"))
    q = np.rint(n * g(np.minimum(np.abs(x) / alpha, 1.0))) / n
    y = np.sign(x) * alpha * inverse(q)
    return np.where(x > 0, y, 0.0) if unsigned else y


@pytest.mark.parametrize("num_bits", [2, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_forward_equals_the_oracle(num_bits, signed):
    rng = np.random.default_rng(0)
    x = rng.normal(size=400).astype("float32")
    quantizer = LCQ(num_bits, signed=signed, num_intervals=5)
    quantizer.initialize(x)
    theta = rng.normal(size=5).astype("float32")
    quantizer.theta.assign(theta)
    n, alpha = quantizer.qmax, float(helpers.numpy(quantizer.alpha))
    y = oracle(x, alpha, theta, n, not signed)
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), y, atol=1e-5)
    codes = quantizer.codes(x)
    assert codes.min() >= quantizer.qmin and codes.max() <= quantizer.qmax
    values = np.sign(codes) * quantizer.codebook()[np.abs(codes)] * alpha
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), values, atol=1e-6)


def test_gradients_equal_the_oracle():
    """Those of the formula with q(u) replaced by u + (q(u) - u, constant)."""
    rng = np.random.default_rng(0)
    # Off the ends of the intervals, where g has no derivative.
    v = (rng.integers(0, 7, 60) + rng.uniform(0.2, 0.8, 60)) / 5
    x = (v * rng.choice([-1.0, 1.0], 60)).astype("float32")
    theta = (0.5 * rng.normal(size=5)).astype("float32")
    dy = rng.normal(size=60).astype("float32")
    quantizer = LCQ(3, num_intervals=5)
    quantizer.build(())
    quantizer.set_scale(1.0 / quantizer.qmax)
    quantizer.theta.assign(theta)
    n = quantizer.qmax
    g, _ = compressor(theta.astype("float64"))
    u = g(np.minimum(np.abs(x), 1.0))
    shift = np.rint(n * u) / n - u

    def loss(x, alpha, theta):
        g, inverse = compressor(theta)
        u = g(np.minimum(np.abs(x) / alpha, 1.0))
        y = np.sign(x) * alpha * inverse(u + shift)
        return (dy * y).sum()

    x64, theta64 = x.astype("float64"), theta.astype("float64")
    dx, others = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_allclose(
        dx,
        helpers.differences(lambda x: loss(x, 1.0, theta64), x64),
        atol=1e-3,
    )
    dalpha = helpers.differences(lambda a: loss(x64, a[0], theta64), np.ones(1))
    np.testing.assert_allclose(others["log_scale"], dalpha[0], atol=2e-3)
    np.testing.assert_allclose(
        others["theta"],
        helpers.differences(lambda t: loss(x64, 1.0, t), theta64),
        atol=2e-3,
    )


def test_it_begins_as_a_uniform_quantizer():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    arguments = dict(num_bits=4, narrow_range=True, channel_axes=(-1,))
    companding, uniform = LCQ(**arguments), LSQ(**arguments)
    for quantizer in (companding, uniform):
        quantizer.initialize(x)
    np.testing.assert_allclose(
        helpers.numpy(companding(x)), helpers.numpy(uniform(x)), atol=1e-5
    )
    np.testing.assert_array_equal(companding.codes(x), uniform.codes(x))


def test_standardized_weights_do_not_depend_on_their_unit():
    x = np.random.default_rng(0).normal(size=50).astype("float32")
    outputs = []
    for factor in (1.0, 8.0):
        quantizer = LCQ(4, standardize=True)
        quantizer.initialize(factor * x)
        outputs.append(helpers.numpy(quantizer(factor * x)))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5)


def test_a_zero_weight_has_a_gradient():
    quantizer = LCQ(4)
    quantizer.build(())
    dx, _ = helpers.quantizer_gradients(
        quantizer, np.zeros(3, "float32"), np.ones(3, "float32")
    )
    np.testing.assert_allclose(dx, 1.0, rtol=1e-5)


def test_it_is_not_exported_and_says_why():
    assert "codebook" in LCQ(4).export_obstacle
    with pytest.raises(ValueError, match="num_intervals.*0"):
        LCQ(4, num_intervals=0)
