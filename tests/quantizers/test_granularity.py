import keras
import numpy as np
import pytest

from keras_saq.quantizers import LSQ
from keras_saq.quantizers.granularity import Granularity
from tests.quantizers import helpers

CASES = [
    ((), None, (3, 5, 4, 6), ()),
    ((-1,), None, (3, 5, 4, 6), (6,)),
    ((-2,), None, (3, 5, 4, 6), (4,)),
    ((-2, -1), None, (3, 5, 4, 6), (4, 6)),
    ((-1, -4), None, (3, 5, 4, 6), (3, 6)),
    ((-2,), None, (7, 3), (7,)),
    ((-3, -1), None, (2, 3, 1), (2, 1)),
    ((-1,), 2, (6, 5), (3, 5)),
    ((-1,), 6, (6, 5), (1, 5)),
]


def scale_of_each_element(scale, axes, group_size, shape):
    """The scale of each element, by a loop."""
    result = np.empty(shape)
    for index in np.ndindex(*shape):
        if group_size is not None:
            where = (index[0] // group_size, index[1])
        else:
            where = tuple(index[axis] for axis in sorted(axes))
        result[index] = scale[where]
    return result


@pytest.mark.parametrize("axes, group_size, shape, scale_shape", CASES)
def test_scales_spread_over_their_elements(
    axes, group_size, shape, scale_shape
):
    granularity = Granularity(axes, group_size)
    assert granularity.scale_shape(shape) == scale_shape
    rng = np.random.default_rng(0)
    scale = rng.random(scale_shape).astype("float32")
    expected = scale_of_each_element(scale, axes, group_size, shape)
    spread = np.broadcast_to(
        helpers.numpy(granularity.spread_over(scale, shape)), shape
    )
    np.testing.assert_array_equal(spread, expected.astype("float32"))
    x = rng.normal(size=shape).astype("float32")
    product = granularity.split(keras.ops.convert_to_tensor(x))
    product = product * granularity.spread(keras.ops.convert_to_tensor(scale))
    product = helpers.numpy(granularity.join(product, shape))
    np.testing.assert_array_equal(product, x * spread)


@pytest.mark.parametrize("axes, group_size, shape, scale_shape", CASES)
def test_rows_and_reductions_have_the_elements_of_each_scale(
    axes, group_size, shape, scale_shape
):
    granularity = Granularity(axes, group_size)
    number = np.arange(np.prod(scale_shape, dtype=int)).reshape(scale_shape)
    x = scale_of_each_element(number, axes, group_size, shape)
    x = x.astype("float32")
    rows = granularity.rows(x)
    np.testing.assert_array_equal(rows.min(axis=1), number.reshape(-1))
    np.testing.assert_array_equal(rows.max(axis=1), number.reshape(-1))
    split = granularity.split(keras.ops.convert_to_tensor(x))
    for function in (keras.ops.min, keras.ops.max):
        reduced = helpers.numpy(granularity.reduce(function, split))
        np.testing.assert_array_equal(reduced, number)


@pytest.mark.parametrize("axes, group_size, shape, scale_shape", CASES)
def test_lsq_equals_lsq_per_scale(axes, group_size, shape, scale_shape):
    """Values and both gradients are those of one LSQ for each scale."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype("float32")
    dy = rng.normal(size=shape).astype("float32")
    arguments = dict(num_bits=3, narrow_range=True)
    quantizer = LSQ(channel_axes=axes, group_size=group_size, **arguments)
    quantizer.initialize(x)
    scale = helpers.numpy(quantizer.scale)
    assert scale.shape == scale_shape
    y = helpers.numpy(quantizer(x))
    dx, others = helpers.quantizer_gradients(quantizer, x, dy)
    number = np.arange(scale.size).reshape(scale_shape)
    numbers = scale_of_each_element(number, axes, group_size, shape)
    for index in list(np.ndindex(*scale_shape))[:4]:
        chosen = numbers == number[index]
        single = LSQ(**arguments)
        single.initialize(x[chosen])
        np.testing.assert_allclose(
            scale[index], helpers.numpy(single.scale), rtol=1e-6
        )
        np.testing.assert_allclose(
            y[chosen], helpers.numpy(single(x[chosen])), rtol=1e-5
        )
        dx_one, one = helpers.quantizer_gradients(single, x[chosen], dy[chosen])
        np.testing.assert_array_equal(dx[chosen], dx_one)
        np.testing.assert_allclose(
            others["log_scale"][index], one["log_scale"], rtol=1e-4, atol=1e-5
        )
    codes = quantizer.codes(x)
    spread = helpers.numpy(quantizer.scale_for(shape))
    np.testing.assert_allclose(codes * spread, y, rtol=1e-6)


def test_axes_are_stored_in_ascending_order():
    quantizer = LSQ(4, channel_axes=[-1, -3])
    assert quantizer.channel_axes == (-3, -1)
    assert quantizer.get_config()["channel_axes"] == [-3, -1]


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="divide the number of inputs.*7"):
        LSQ(4, channel_axes=(-1,), group_size=4).build((7, 3))
    with pytest.raises(ValueError, match="inputs, outputs.*3, 3, 8, 8"):
        LSQ(4, channel_axes=(-1,), group_size=4).build((3, 3, 8, 8))
    with pytest.raises(ValueError, match="known size"):
        LSQ(4, channel_axes=(-2,)).build((None, 3))
    with pytest.raises(ValueError, match="no axis -2"):
        LSQ(4, channel_axes=(-2,)).build((3,))


@pytest.mark.parametrize("group_size", [0, -2, 1.5, True])
def test_impossible_group_sizes_are_refused(group_size):
    with pytest.raises(ValueError, match="group_size"):
        LSQ(4, channel_axes=(-1,), group_size=group_size)


def test_groups_need_output_channels():
    with pytest.raises(ValueError, match=r"channel_axes=\(-1,\)"):
        LSQ(4, group_size=4)
