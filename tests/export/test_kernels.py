"""Single kernels of the reference against LiteRT with XNNPACK, exactly."""

import numpy as np
import pytest

from keras_saq.export import reference
from keras_saq.export.flatbuffer import pack
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.program import Op
from keras_saq.export.program import Program
from keras_saq.export.program import Tensor
from keras_saq.export.program import Weights

F = np.float32


def run_file(program, inputs):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=to_bytes(program))
    details = interpreter.get_input_details()
    for detail, x in zip(details, inputs):
        interpreter.resize_tensor_input(detail["index"], x.shape)
    interpreter.allocate_tensors()
    for detail, x in zip(details, inputs):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    return interpreter.get_tensor(output["index"]), "DELEGATE" in names


def check(op, inputs, delegated=True):
    program = Program(op.inputs, [op.output], [op], [op.output.scale], [])
    expected = reference.run(program, inputs)[0]
    actual, has_delegate = run_file(program, inputs)
    assert has_delegate == delegated
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    return expected


def codes(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (4, *shape)).astype(np.int8)


def weights(shape, axis, bits, seed=0):
    rng = np.random.default_rng(seed)
    limit = 2 ** (bits - 1) - 1
    channels = shape[axis]
    return Weights(
        rng.integers(-limit, limit + 1, shape),
        (0.001 + 0.01 * rng.random(channels)).astype(F),
        bits,
        axis,
        rng.integers(-3000, 3000, channels),
    )


WINDOW = {"strides": (1, 1), "padding": "same", "dilation": (1, 1)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(32,), (5, 5, 32)])
def test_fully_connected(bits, shape, seed):
    a = Tensor("a", shape, F(0.02), -128)
    b = Tensor("b", (*shape[:-1], 12), F(0.05), 3)
    kernel = weights((12, 32), 0, bits, seed)
    op = Op("fully_connected", [a], b, kernel)
    check(op, [codes(shape, seed)])


@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
@pytest.mark.parametrize(
    "strides, padding, dilation",
    [
        ((1, 1), "same", (1, 1)),
        ((2, 2), "same", (1, 1)),
        ((2, 2), "valid", (1, 1)),
        ((1, 1), "same", (2, 2)),
    ],
)
def test_conv(activation, strides, padding, dilation):
    a = Tensor("a", (9, 8, 6), F(0.02), -128)
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    kernel = weights((10, 3, 3, 6), 0, 8)
    size = 9, 8
    if padding == "valid":
        size = 4, 3
    elif strides == (2, 2):
        size = 5, 4
    b = Tensor("b", (*size, 10), F(0.2), 7)
    check(Op("conv", [a], b, kernel, activation, options), [codes((9, 8, 6))])


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise(multiplier):
    a = Tensor("a", (8, 8, 6), F(0.02), 5)
    b = Tensor("b", (8, 8, 6 * multiplier), F(0.1), -100)
    kernel = weights((1, 3, 3, 6 * multiplier), 3, 8)
    options = {**WINDOW, "depth_multiplier": multiplier}
    op = Op("depthwise", [a], b, kernel, "relu", options)
    check(op, [codes((8, 8, 6))])


def test_sums_beyond_float32():
    """Accumulators above 2**24 are exact in the reference too."""
    a = Tensor("a", (4096,), F(0.02), -128)
    b = Tensor("b", (3,), F(500.0), 0)
    kernel = Weights(
        np.full((3, 4096), 127), np.full(3, 0.01, F), 8, 0, np.array([1, 0, -1])
    )
    x = np.random.default_rng(0).integers(100, 128, (4, 4096)).astype(np.int8)
    check(Op("fully_connected", [a], b, kernel), [x])


@pytest.mark.parametrize("seed", range(20))
def test_add(seed):
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(-5, 0, 3)).astype(F)
    points = rng.integers(-128, 128, 3)
    a, b, c = (
        Tensor(name, (6, 6, 5), s, int(p))
        for name, s, p in zip("abc", scales, points)
    )
    # XNNPACK wants the quotients of scales within 2^-10 and 2^8.
    activation = ["linear", "relu", "relu6"][seed % 3]
    inputs = [codes((6, 6, 5), seed), codes((6, 6, 5), seed + 100)]
    check(Op("add", [a, b], c, None, activation), inputs)


@pytest.mark.parametrize("size", [2, 4, 7, 8])
@pytest.mark.parametrize("keep_dims", [False, True])
def test_mean(size, keep_dims):
    a = Tensor("a", (size, size, 16), F(0.02), -128)
    shape = (1, 1, 16) if keep_dims else (16,)
    b = Tensor("b", shape, F(0.013), -128)
    options = {"keep_dims": keep_dims}
    check(Op("mean", [a], b, options=options), [codes((size, size, 16))])


def near_tie_scales(divisor, seed):
    """Input and output scale whose ratio is 1 / divisor but for some ulps.

    Codes are then ties but for the last bits, where two formulas that agree
    on random data differ.
    """
    rng = np.random.default_rng(seed)
    output_scale = F(0.25 * (1 + 0.3 * rng.random()))
    wobble = 1 + (rng.random() - 0.5) * 6e-7
    return F(float(output_scale) / divisor * wobble), output_scale


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_mean_near_ties(size, seed):
    rng = np.random.default_rng(seed)
    count = size * size
    divisor = int(rng.choice([2, 6, 30, 58, 116]))
    scale, output_scale = near_tie_scales(divisor / count, seed)
    points = rng.integers(-128, 128, 2)
    a = Tensor("a", (size, size, 64), scale, int(points[0]))
    b = Tensor("b", (64,), output_scale, int(points[1]))
    op = Op("mean", [a], b, options={"keep_dims": False})
    check(op, [codes((size, size, 64), seed)])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["fc2", "fc4", "fc8", "conv", "depthwise"])
def test_weighted_kernels_near_ties(kind, seed):
    rng = np.random.default_rng(seed)
    divisor = int(rng.choice([2, 6, 30, 58, 116]))
    scale, output_scale = near_tie_scales(divisor, seed)
    a = Tensor("a", (6, 6, 8), F(1.0), int(rng.integers(-128, 128)))
    point = int(rng.integers(-128, 128))
    if kind == "depthwise":
        kernel, channels = weights((1, 3, 3, 8), 3, 8, seed), 8
    elif kind == "conv":
        kernel, channels = weights((16, 3, 3, 8), 0, 8, seed), 16
    else:
        kernel, channels = weights((16, 8), 0, int(kind[2:]), seed), 16
    kernel.scale = np.full(channels, scale, F)
    kernel.bias = kernel.bias % 100
    b = Tensor("b", (6, 6, channels), output_scale, point)
    kind = "fully_connected" if kind.startswith("fc") else kind
    op = Op(kind, [a], b, kernel, options={**WINDOW, "depth_multiplier": 1})
    check(op, [codes((6, 6, 8), seed)])


def test_moves():
    a = Tensor("a", (8, 8, 4), F(0.02), -7)
    x = codes((8, 8, 4))
    pads = {"padding": ((1, 0), (2, 1))}
    check(
        Op("pad", [a], Tensor("b", (9, 11, 4), F(0.02), -7), options=pads), [x]
    )
    pool = {"window": (3, 3), "strides": (2, 2), "padding": "same"}
    op = Op("max_pool", [a], Tensor("b", (4, 4, 4), F(0.02), -7), options=pool)
    check(op, [x])
    check(Op("reshape", [a], Tensor("b", (256,), F(0.02), -7)), [x])
    c = Tensor("c", (8, 8, 4), F(0.02), -7)
    joined = Tensor("b", (8, 8, 8), F(0.02), -7)
    op = Op("concatenate", [a, c], joined, options={"axis": 3})
    check(op, [x, codes((8, 8, 4), 1)])


@pytest.mark.parametrize("seed", range(6))
def test_quantize_near_ties(seed):
    _, scale = near_tie_scales(1, seed)
    halves = np.arange(-300, 300, dtype=F) / 2 * scale
    x = np.stack([halves, np.nextafter(halves, F(9e9)), halves * F(1 - 1e-7)])
    integer = Tensor("b", (600,), scale, 3)
    check(Op("quantize", [Tensor("a", (600,))], integer), [x])


def test_quantize_and_dequantize():
    real = Tensor("a", (64,))
    integer = Tensor("b", (64,), F(0.0173), -128)
    x = np.random.default_rng(0).normal(size=(16, 64)).astype(F) * 3
    check(Op("quantize", [real], integer), [x])
    check(Op("dequantize", [integer], real), [codes((64,))])


def test_requantize_moves_the_zero_point():
    a = Tensor("a", (64,), F(0.02), 112)
    check(
        Op("requantize", [a], Tensor("b", (64,), F(0.02), -128)), [codes((64,))]
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_pack(bits):
    limit = 2 ** (bits - 1)
    values = np.random.default_rng(0).integers(-limit, limit, 37)
    packed = pack(values, bits)
    assert len(packed) == -(-37 * bits // 8)
    unpacked = [
        (int(byte) >> shift) % 2**bits
        for byte in packed
        for shift in range(0, 8, bits)
    ][:37]
    signed = [v - 2**bits if v >= limit else v for v in unpacked]
    assert signed == values.tolist()
