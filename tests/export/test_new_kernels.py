"""Kernels of products, sums, transposed and grouped convolutions, averages
and lookups: the file equals the reference, the reference an oracle of its own.
"""

import dataclasses

import numpy as np
import pytest

from keras_saq.export import reference
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.kernels import KERNELS
from keras_saq.export.program import Op
from keras_saq.export.program import Program
from keras_saq.export.program import Tensor
from tests.export.test_kernels import codes
from tests.export.test_kernels import near_tie_scales
from tests.export.test_kernels import weights

F = np.float32


def check(op, inputs, delegated=True):
    """File and reference agree, at another batch size than the file's too."""
    program = Program(
        [t for t in op.inputs if not t.is_constant],
        [op.output],
        [op],
        [op.output.scale],
        [],
    )
    expected = reference.run(program, inputs)[0]
    with IsolatedFile(to_bytes(program)) as file:
        assert bool(file.undelegated) != delegated
        (actual,) = file.run(inputs)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    return expected.astype(np.int64)


def all_pairs():
    """Every pair of codes, as two images."""
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    return [x.astype(np.int8)[None, ..., None] for x in (a, b)]


def nearest(real, output):
    """Nearest codes to real values, the oracle of one rounding."""
    codes = np.rint(real / np.float64(output.scale)) + output.zero_point
    return np.clip(codes, -128, 127)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["multiply", "subtract", "add"])
def test_all_pairs_of_codes(kind, seed):
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(-4, -1, 3)).astype(F)
    if seed == 0 and kind == "multiply":
        # Products are rounding ties but for some float32 steps.
        tie, scales[2] = near_tie_scales(30, seed)
        scales[0], scales[1] = tie / F(0.5), F(0.5)
    a, b, c = (
        Tensor(name, (256, 256, 1), s, int(p))
        for name, s, p in zip("abc", scales, rng.integers(-128, 128, 3))
    )
    activation = ["linear", "relu", "relu6"][seed % 3]
    inputs = all_pairs()
    made = check(Op(kind, [a, b], c, None, activation), inputs)
    first, second = (
        (x.astype(np.float64) - t.zero_point) * np.float64(t.scale)
        for x, t in zip(inputs, (a, b))
    )
    real = {
        "add": first + second,
        "multiply": first * second,
        "subtract": first - second,
    }[kind]
    if activation != "linear":
        real = np.clip(real, 0, 6 if activation == "relu6" else np.inf)
    difference = np.abs(made - nearest(real, c))
    # Sums round halves up, in 20 bits; products to even, in float32.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("kind", ["multiply", "add"])
@pytest.mark.parametrize("shape", [(1, 1, 8), (6, 5, 1)])
def test_broadcasts(kind, shape):
    a = Tensor("a", (6, 5, 8), F(0.02), -3)
    b = Tensor("b", shape, F(0.01), -128)
    c = Tensor("c", (6, 5, 8), F(0.03), 5)
    check(Op(kind, [a, b], c), [codes((6, 5, 8)), codes(shape, 1)])


@pytest.mark.parametrize("seed", range(4))
def test_batch_matmul(seed):
    rng = np.random.default_rng(seed)
    depth = int(rng.choice([3, 8, 33, 64]))
    points = rng.integers(-128, 128, 2)
    scale, output_scale = near_tie_scales(int(rng.choice([6, 58])), seed)
    a = Tensor("a", (2, 5, depth), F(0.5), int(points[0]))
    b = Tensor("b", (2, 7, depth), F(scale / F(0.5)), 0)
    c = Tensor("c", (2, 5, 7), output_scale, int(points[1]))
    inputs = [codes(a.shape, seed), codes(b.shape, seed + 50)]
    made = check(Op("batch_matmul", [a, b], c), inputs)
    x, y = inputs[0].astype(np.int64) - a.zero_point, inputs[1].astype(int)
    sums = np.einsum("nbik,nbjk->nbij", x, y)
    real = sums * float(a.scale) * float(b.scale)
    assert np.abs(made - nearest(real, c)).max() <= 1


def transposed_oracle(x, kernel, strides, shape):
    """Every input pixel adds its kernel to the output, "same" or "valid"."""
    _, height, width, _ = x.shape
    channels, rows, columns, _ = kernel.shape
    full = np.zeros(
        (
            len(x),
            (height - 1) * strides + rows,
            (width - 1) * strides + columns,
            channels,
        ),
        np.int64,
    )
    for i in range(height):
        for j in range(width):
            patch = np.einsum("nc,oabc->nabo", x[:, i, j], kernel)
            top, left = i * strides, j * strides
            full[:, top : top + rows, left : left + columns] += patch
    top, left = (
        max(whole - wanted, 0) // 2
        for whole, wanted in zip(full.shape[1:3], shape)
    )
    padded = np.zeros((len(x), *shape[:2], channels), np.int64)
    part = full[:, top : top + shape[0], left : left + shape[1]]
    padded[:, : part.shape[1], : part.shape[2]] = part
    return padded


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel, strides", [(3, 2), (2, 2), (4, 2), (3, 1)])
def test_transposed_convolution(kernel, strides, padding):
    a = Tensor("a", (5, 4, 6), F(0.02), -100)
    if padding == "same":
        size = 5 * strides, 4 * strides
    else:
        size = tuple(n * strides + max(kernel - strides, 0) for n in (5, 4))
    b = Tensor("b", (*size, 8), F(0.3), 3)
    kernel_codes = weights((8, kernel, kernel, 6), 0, 8)
    options = {
        "strides": (strides, strides),
        "padding": padding,
        "dilation": (1, 1),
    }
    op = Op("transpose_conv", [a], b, kernel_codes, "relu", options)
    x = codes((5, 4, 6))
    made = check(op, [x])
    sums = transposed_oracle(
        x.astype(np.int64) + 100, kernel_codes.codes, strides, size
    )
    real = np.maximum((sums + kernel_codes.bias) * 0.02 * kernel_codes.scale, 0)
    assert np.abs(made - nearest(real, b)).max() <= 1
    assert (made == nearest(real, b)).mean() > 0.99


@pytest.mark.parametrize("groups", [2, 6])
def test_grouped_convolution(groups):
    a = Tensor("a", (7, 6, 12), F(0.02), 9)
    b = Tensor("b", (7, 6, 24), F(0.3), -7)
    kernel = weights((24, 3, 3, 12 // groups), 0, 8)
    options = {"strides": (1, 1), "padding": "same", "dilation": (1, 1)}
    x = codes((7, 6, 12))
    made = check(Op("conv", [a], b, kernel, "linear", options), [x])
    padded = np.pad(x.astype(np.int64) - 9, ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = []
    for group in range(groups):
        image = padded[..., group * 12 // groups : (group + 1) * 12 // groups]
        filters = kernel.codes.reshape(groups, -1, 3, 3, 12 // groups)[group]
        parts.append(
            sum(
                image[:, i : i + 7, j : j + 6] @ filters[:, i, j].T
                for i in range(3)
                for j in range(3)
            )
        )
    sums = np.concatenate(parts, axis=-1) + kernel.bias
    real = sums * 0.02 * kernel.scale
    assert (made == nearest(real, b)).mean() > 0.99


@pytest.mark.parametrize("axes", [(1,), (1, 2)])
def test_mean_over_a_sequence_and_an_image(axes):
    shape = (12, 16) if axes == (1,) else (4, 3, 16)
    a = Tensor("a", shape, F(0.02), -128)
    b = Tensor("b", (16,), F(0.013), -128)
    options = {"keep_dims": False, "axes": axes}
    check(Op("mean", [a], b, options=options), [codes(shape)])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_lookup(bits):
    """Rows of packed codes, each with a scale; not delegated, and exact."""
    limit = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(bits)
    table = Tensor(
        "table",
        (9, 8),
        (0.01 + 0.1 * rng.random(9)).astype(F),
        data=rng.integers(-limit, limit + 1, (9, 8)),
        is_static=True,
        num_bits=bits,
    )
    indices = Tensor("i", (), dtype="int32")
    rows = Tensor("rows", (8,))
    op = Op("lookup", [indices, table], rows)
    x = rng.integers(0, 9, 20).astype(np.int32)
    program = Program([indices], [rows], [op], [None], [])
    expected = table.data[x] * table.scale[x][:, None]
    with IsolatedFile(to_bytes(program)) as file:
        (made,) = file.run([x])
    np.testing.assert_array_equal(made, expected.astype(F))
    np.testing.assert_array_equal(reference.run(program, [x])[0], made)


@pytest.mark.parametrize("bits, depth", [(2, 6), (4, 5), (4, 6), (2, 8)])
def test_rows_of_whole_bytes_are_delegated(bits, depth):
    """Why packed rows have whole bytes: others leave the delegate."""
    a = Tensor("a", (depth,), F(0.02), -128)
    b = Tensor("b", (6,), F(0.05), 3)
    op = Op("fully_connected", [a], b, weights((6, depth), 0, bits))
    check(op, [codes((depth,))], delegated=depth * bits % 8 == 0)


@pytest.mark.parametrize("kind", ["add", "multiply", "maximum", "divide"])
def test_float_kernels_that_are_called_exact(kind):
    assert KERNELS[kind].is_exact
    a, b, c = (Tensor(name, (64,)) for name in "abc")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 64)).astype(F)
    program = Program([a, b], [c], [Op(kind, [a, b], c)], [None], [])
    with IsolatedFile(to_bytes(program)) as file:
        (made,) = file.run([x, y])
    np.testing.assert_array_equal(made, reference.run(program, [x, y])[0])


def test_given_tensors_count_instead_of_computed_ones():
    a = Tensor("a", (4,), F(0.1), 0)
    b, c = (Tensor(name, (4,), F(0.2), 0) for name in "bc")
    first, second = Op("add", [a, a], b), Op("add", [b, b], c)
    program = Program([a], [c], [first, second], [c.scale], [])
    x = np.array([[1, 2, 3, 4]], np.int8)
    kept = []
    (made,) = reference.run(program, [x], kept, {b: x + 1})
    np.testing.assert_array_equal(made, 2 * (x + 1))
    # What the reference makes of the first op is still told.
    np.testing.assert_array_equal(kept[0][1], x)
    assert dataclasses.replace(program).is_exact
