"""What holds for every quantizer, on any data."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_saq import quantizers
from tests.quantizers import helpers

SIGNED = {"signed": True}
UNSIGNED = {"signed": False}
NARROW = {"signed": True, "narrow_range": True}

# Every scheme that maps its own values to themselves.
PROJECTIONS = [
    ("lsq", SIGNED),
    ("lsq", NARROW),
    ("lsq", UNSIGNED),
    ("lsq_plus", SIGNED),
    ("lsq_plus", UNSIGNED),
    ("pact", UNSIGNED),
    ("pact", SIGNED),
    ("power_of_two", SIGNED),
    ("power_of_two", UNSIGNED),
    ("moving_average", SIGNED),
    ("moving_average", UNSIGNED),
    ("moving_average", NARROW),
    ("liq", {"standardize": False}),
    ("lcq", SIGNED),
    ("lcq", UNSIGNED),
    ("noise_tempering", SIGNED),
    ("nipq", SIGNED),
    ("nipq", UNSIGNED),
    ("rand", NARROW),
]
ALL = [*PROJECTIONS, ("dorefa", SIGNED), ("dorefa", UNSIGNED), ("liq", {})]

# Multiples of a power of two, so that small values differ from zero.
values = st.integers(-(2**14), 2**14).map(lambda i: i / 64)
arrays = hnp.arrays(np.float32, st.sampled_from([1, 24]), elements=values)
widths = st.sampled_from([2, 3, 8])
properties = hypothesis.settings(deadline=None, max_examples=12)


def make(kind, x, num_bits):
    name, arguments = kind
    quantizer = quantizers.get(
        name, num_bits=num_bits, initial_scale="minmax", **arguments
    )
    quantizer.initialize(x)
    return quantizer


def ids(kind):
    return "-".join([kind[0], *map(str, kind[1].values())])


def step_of(quantizer):
    return float(helpers.numpy(quantizer.scale))


@pytest.mark.parametrize("kind", ALL, ids=ids)
@properties
@hypothesis.given(x=arrays, other=arrays, num_bits=widths)
def test_codes_are_in_range_and_are_the_values(kind, x, other, num_bits):
    quantizer = make(kind, x, num_bits)
    for data in (x, other):
        codes = quantizer.codes(data)
        assert codes.dtype == np.int32
        assert codes.min() >= quantizer.qmin
        assert codes.max() <= quantizer.qmax
        assert quantizer.qmax < 2**quantizer.code_bits
        if kind[0] == "lcq":
            part = quantizer.codebook()[np.abs(codes)]
            codes = np.sign(codes) * part * quantizer.qmax
        expected = codes * step_of(quantizer)
        expected += helpers.numpy(quantizer.offset_for(data.shape))
        np.testing.assert_allclose(
            helpers.numpy(quantizer(data)), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("kind", PROJECTIONS, ids=ids)
@properties
@hypothesis.given(x=arrays, other=arrays, num_bits=widths)
def test_quantizing_twice_changes_nothing(kind, x, other, num_bits):
    quantizer = make(kind, x, num_bits)
    y = helpers.numpy(quantizer(other))
    again = helpers.numpy(quantizer(y))
    # An offset is added and taken away again.
    atol = 1e-4 if kind[0] == "lsq_plus" else 1e-9
    np.testing.assert_allclose(again, y, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("kind", ALL, ids=ids)
@properties
@hypothesis.given(x=arrays, other=arrays, num_bits=widths)
def test_monotone(kind, x, other, num_bits):
    quantizer = make(kind, x, num_bits)
    y = helpers.numpy(quantizer(np.sort(other)))
    assert np.all(np.diff(y) >= -1e-6 * np.abs(y).max())


@pytest.mark.parametrize("kind", PROJECTIONS, ids=ids)
@properties
@hypothesis.given(x=arrays, num_bits=widths)
def test_another_unit_changes_nothing_else(kind, x, num_bits):
    quantizer, scaled = make(kind, x, num_bits), make(kind, 4 * x, num_bits)
    y = helpers.numpy(scaled(4 * x)) / 4
    # Rounding errors move ties: between those of the values around.
    margin = 1e-4 * step_of(quantizer) + 1e-6 * np.abs(x)
    low = helpers.numpy(quantizer(x - margin))
    high = helpers.numpy(quantizer(x + margin))
    slack = 1e-5 * np.abs(x).max() + 1e-6
    assert np.all(y >= low - slack) and np.all(y <= high + slack)
