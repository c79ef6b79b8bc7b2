import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_saq.interop.learned_scale import fake_quantize
from keras_saq.interop.settings import Settings
from keras_saq.quantizers import LSQ


def oracle(x, scale, qmin, qmax, dy):
    """Result and gradients, element by element."""
    y, dx = np.zeros_like(x), np.zeros_like(x)
    ds = np.zeros_like(scale)
    scales = np.broadcast_to(scale, x.shape)
    for index in np.ndindex(x.shape):
        v = x[index] / scales[index]
        code = np.rint(min(max(v, qmin), qmax))
        y[index] = code * scales[index]
        inside = qmin <= v <= qmax
        dx[index] = dy[index] * inside
        where = tuple(
            0 if n == 1 else i
            for i, n in zip(index[len(index) - scale.ndim :], scale.shape)
        )
        ds[where] += dy[index] * (code - v * inside)
    return y, dx, ds


@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (3, 1), (3, 4)])
def test_values_and_gradients(shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 4)).astype("float32") * 3
    dy = rng.standard_normal(x.shape).astype("float32")
    scale = rng.uniform(0.3, 0.9, shape).astype("float32")
    with tf.GradientTape() as tape:
        inputs = tf.constant(x), tf.constant(scale)
        tape.watch(inputs)
        y = fake_quantize(*inputs, -7.0, 7.0)
    dx, ds = tape.gradient(y, inputs, output_gradients=tf.constant(dy))
    expected = oracle(x, scale, -7, 7, dy)
    for received, value in zip((y, dx, ds), expected, strict=True):
        np.testing.assert_allclose(received, value, rtol=1e-5, atol=1e-5)
    assert (dx.numpy() == 0).any()


def quantizer_settings(**kwargs):
    values = {
        "num_bits": 4,
        "signed": True,
        "narrow_range": True,
        "channel_axes": (),
        "initial_scale": "mse",
        **kwargs,
    }
    return Settings(**values)


@settings(deadline=None, max_examples=30)
@given(
    x=hnp.arrays(
        "float32",
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=5),
        elements=st.floats(-100, 100, width=32),
    ),
    signed=st.sampled_from([True, False, None]),
    axes=st.sampled_from([(), (-1,), (-2,), (-2, -1)]),
    rule=st.sampled_from(["mse", "lsq", "minmax"]),
)
def test_scales_are_those_of_the_quantizer(x, signed, axes, rule):
    quantizer = LSQ(4, signed, channel_axes=axes, initial_scale=rule)
    ours = Settings.of(quantizer, "it")
    log_scale, state = ours.taken_from(x)
    quantizer.initialize(x)
    np.testing.assert_array_equal(log_scale, quantizer.log_scale)
    assert state == np.asarray(quantizer.state)
    assert ours.code_range(state == 2) == (quantizer.qmin, quantizer.qmax)
    received = np.exp(log_scale).reshape(ours.broadcast_shape(x.shape))
    expected = np.asarray(quantizer.scale_for(x.shape))
    np.testing.assert_allclose(
        received + np.zeros(x.shape), expected + np.zeros(x.shape), rtol=1e-6
    )


def test_data_and_back():
    given = quantizer_settings(channel_axes=(-1,), scale=[0.5, 0.25])
    assert Settings(**given.as_data()) == given
    log_scale, state = given.first((3, 2))
    np.testing.assert_allclose(np.exp(log_scale), [0.5, 0.25])
    assert state == 2


def test_before_there_is_data():
    log_scale, state = quantizer_settings(signed=None).first((None, 3))
    assert state == 0
    np.testing.assert_allclose(np.exp(log_scale), 6 / 7, rtol=1e-6)
    log_scale, _ = quantizer_settings(channel_axes=(-1,)).first((2, 3))
    assert log_scale.shape == (3,)
