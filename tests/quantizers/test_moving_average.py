import keras
import numpy as np
import pytest

from keras_saq.quantizers import MovingAverage
from keras_saq.quantizers import check_role
from tests.quantizers import helpers


def oracle(x, low, high, num_bits, narrow=False):
    """The nudged grid, and which values are inside of it."""
    steps = 2**num_bits - 1 - narrow
    scale = (high - low) / steps
    zero_point = np.rint(-low / scale)
    codes = np.rint(x / scale)
    codes = np.clip(codes, -zero_point, steps - zero_point)
    inside = (x >= -zero_point * scale) & (x <= (steps - zero_point) * scale)
    return codes * scale, codes, zero_point, inside


@pytest.mark.parametrize("num_bits", [2, 4, 8])
@pytest.mark.parametrize("narrow", [False, True])
def test_asymmetric_range_equals_the_oracle(num_bits, narrow):
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 1.0, 300).astype("float32")
    quantizer = MovingAverage(num_bits, narrow_range=narrow, symmetric=False)
    quantizer.initialize(x)
    low, high = float(x.min()), float(x.max())
    x = np.concatenate([x, 3 * x])
    dy = rng.normal(size=x.shape).astype("float32")
    y, codes, zero_point, inside = oracle(x, low, high, num_bits, narrow)
    np.testing.assert_allclose(helpers.numpy(quantizer(x)), y, atol=1e-6)
    np.testing.assert_array_equal(quantizer.codes(x), codes)
    assert quantizer.zero_point == zero_point
    assert quantizer.qmin == -zero_point
    assert quantizer.qmax - quantizer.qmin == 2**num_bits - 1 - narrow
    dx, others = helpers.quantizer_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(dx, dy * inside)
    assert not others


def test_it_agrees_with_the_kernel_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 1.0, 300).astype("float32")
    quantizer = MovingAverage(4)
    quantizer.initialize(x)
    expected = tf.quantization.fake_quant_with_min_max_vars(
        x, x.min(), x.max(), num_bits=4
    )
    np.testing.assert_allclose(
        helpers.numpy(quantizer(x)), expected.numpy(), atol=1e-6
    )


@pytest.mark.parametrize("narrow", [False, True])
def test_symmetric_range_covers_each_channel(narrow):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype("float32") * [1.0, 2.0, 0.1]
    quantizer = MovingAverage(
        4, narrow_range=narrow, symmetric=True, channel_axes=(-1,)
    )
    quantizer.initialize(x)
    qmin = -7 if narrow else -8
    assert (quantizer.qmin, quantizer.qmax) == (qmin, 7)
    scale = np.maximum(x.max(0) / 7, x.min(0) / qmin)
    np.testing.assert_allclose(helpers.numpy(quantizer.scale), scale, rtol=1e-6)
    np.testing.assert_allclose(
        helpers.numpy(quantizer(x)),
        np.clip(np.rint(x / scale), qmin, 7) * scale,
        atol=1e-6,
    )


def test_the_average_moves_in_training_only():
    quantizer = MovingAverage(8, momentum=0.9)
    quantizer.initialize(np.float32([-1.0, 2.0]))
    batch = np.float32([-3.0, 0.5])
    quantizer(batch)
    quantizer(batch, training=False)
    assert float(helpers.numpy(quantizer.minimum)) == -1.0
    quantizer(batch, training=True)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.minimum)), -1.2, rtol=1e-6
    )
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.maximum)), 1.85, rtol=1e-6
    )


def test_training_reaches_it_through_the_layers_around_it():
    class Around(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.quantizer = MovingAverage(8, update="last_value")

        def call(self, x):
            return self.quantizer(x)

    layer = Around()
    model = keras.Sequential(
        [keras.layers.Input((2,)), layer, keras.layers.Dense(2)]
    )
    x = np.float32([[-1.0, 2.0]])
    layer.quantizer.initialize(x)
    model(10 * x, training=False)
    assert float(layer.quantizer.maximum) == 2.0
    model(10 * x, training=True)
    assert float(layer.quantizer.maximum) == 20.0
    model.compile("sgd", "mse")
    model.fit(5 * x, x, verbose=0)
    assert float(layer.quantizer.maximum) == 10.0
    model.predict(7 * x, verbose=0)
    assert float(layer.quantizer.maximum) == 10.0


def test_last_value_and_all_values():
    batches = [np.float32([-1.0, 5.0]), np.float32([-2.0, 1.0])]
    expected = {"last_value": (-2.0, 1.0), "all_values": (-2.0, 5.0)}
    for update, limits in expected.items():
        quantizer = MovingAverage(8, update=update)
        quantizer.initialize(batches[0])
        for batch in batches:
            quantizer(batch, training=True)
        found = (
            float(helpers.numpy(quantizer.minimum)),
            float(helpers.numpy(quantizer.maximum)),
        )
        assert found == limits, update


def test_unsigned_inputs_have_zero_at_the_lower_end():
    quantizer = MovingAverage(4, signed=None)
    quantizer.initialize(np.float32([0.5, 3.0]))
    assert quantizer.signed is False
    assert (quantizer.qmin, quantizer.qmax) == (0, 15)
    np.testing.assert_allclose(
        float(helpers.numpy(quantizer.scale)), 0.2, rtol=1e-6
    )
    quantizer(np.float32([-1.0, 3.0]), training=True)
    assert float(helpers.numpy(quantizer.minimum)) == 0.0


def test_weights_need_a_symmetric_range():
    check_role(MovingAverage(8, symmetric=True), "weights")
    check_role(MovingAverage(8, narrow_range=True), "weights")
    with pytest.raises(ValueError, match="symmetric=True"):
        check_role(MovingAverage(8), "weights")
    with pytest.raises(ValueError, match="symmetric=True"):
        MovingAverage(8, channel_axes=(-1,))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`update`.*'first'"):
        MovingAverage(8, update="first")
    with pytest.raises(ValueError, match="`momentum`.*1.5"):
        MovingAverage(8, momentum=1.5)
