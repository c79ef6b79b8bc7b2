"""Packed k x k convolutions: the convolution's codes, by slices and Dense."""

import numpy as np
import pytest

from keras_saq.export import reference
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.patches import with_packed_convolutions
from keras_saq.export.program import Op
from keras_saq.export.program import Program
from keras_saq.export.program import Tensor
from keras_saq.export.program import Weights

F = np.float32
SIZE = (11, 10)


def convolution(kernel, strides, padding, dilation, bits, channels=24):
    rng = np.random.default_rng(kernel * 7 + strides)
    limit = 2 ** (bits - 1) - 1
    codes = rng.integers(-limit, limit + 1, (40, kernel, kernel, channels))
    scale = (0.001 + 0.01 * rng.random(40)).astype(F)
    weights = Weights(codes, scale, 8, 0, rng.integers(-3000, 3000, 40))
    reach = (kernel - 1) * dilation + 1
    shape = [
        -(-(n if padding == "same" else n - reach + 1) // strides) for n in SIZE
    ]
    a = Tensor("a", (*SIZE, channels), F(0.02), -100)
    b = Tensor("b", (*shape, 40), F(0.4), 3)
    options = {
        "strides": (strides, strides),
        "padding": padding,
        "dilation": (dilation, dilation),
    }
    op = Op("conv", [a], b, weights, "relu", options, "layer")
    return Program([a], [b], [op], [b.scale], [])


def images(program, num=2):
    shape = (num, *program.inputs[0].shape)
    rng = np.random.default_rng(0)
    return rng.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "kernel, strides, dilation",
    [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 2, 1), (7, 1, 1), (3, 3, 1)],
)
def test_packed_codes_give_the_convolutions_outputs(
    kernel, strides, dilation, padding, bits
):
    program = convolution(kernel, strides, padding, dilation, bits)
    packed = with_packed_convolutions(program)
    dense = packed.ops[-1]
    assert dense.kind == "fully_connected" and dense.path == "layer"
    assert dense.weights.num_bits == (2 if bits == 2 else 4)
    assert dense.output is program.outputs[0]
    x = images(program)
    (expected,) = reference.run(program, [x])
    np.testing.assert_array_equal(reference.run(packed, [x])[0], expected)
    content = to_bytes(packed)
    with IsolatedFile(content) as file:
        assert not file.undelegated
        np.testing.assert_array_equal(file.run([x])[0], expected)
    assert len(content) < len(to_bytes(program))


def test_a_strided_1x1_convolution_is_one_slice():
    program = convolution(1, 2, "same", 1, 4, channels=64)
    packed = with_packed_convolutions(program)
    kinds = [op.kind for op in packed.ops]
    assert kinds == ["pad", "space_to_depth", "slice", "fully_connected"]
    x = images(program)
    with IsolatedFile(to_bytes(packed)) as file:
        assert not file.undelegated
        (actual,) = file.run([x])
    np.testing.assert_array_equal(actual, reference.run(program, [x])[0])


@pytest.mark.parametrize("channels, bits", [(20, 2), (22, 4), (21, None)])
def test_rows_of_codes_are_whole_bytes(channels, bits):
    program = convolution(3, 1, "same", 1, 2, channels)
    packed = with_packed_convolutions(program)
    if bits is None:
        assert packed.ops == program.ops
        return
    assert packed.ops[-1].weights.num_bits == bits
    with IsolatedFile(to_bytes(packed)) as file:
        assert not file.undelegated


def test_what_stays_a_convolution():
    wide = convolution(3, 1, "same", 1, 8)
    small = convolution(3, 1, "same", 1, 4, channels=2)
    grouped = convolution(3, 1, "same", 1, 4)
    (op,) = grouped.ops
    op.inputs = [Tensor("a", (*SIZE, 48), F(0.02), -100)]
    uneven = convolution(3, 1, "same", 1, 4)
    uneven.ops[0].options["strides"] = (1, 2)
    for program in (wide, small, grouped, uneven):
        assert with_packed_convolutions(program).ops == program.ops


def test_names_stay_unique():
    program = convolution(3, 1, "same", 1, 4)
    program.inputs[0].name = "b/1"
    names = [op.output.name for op in with_packed_convolutions(program).ops]
    assert len(set(names)) == len(names) and "b/1" not in names
    assert program.ops[0].kind == "conv"
