"""Activation functions between integers: tables of all 256 codes."""

import keras
import numpy as np
import pytest

from keras_saq.export import reference
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.lowering import activations
from keras_saq.export.lowering.builder import Builder
from keras_saq.export.pending import Pending
from keras_saq.export.program import Program
from keras_saq.export.program import Tensor
from keras_saq.quantizers import LSQ

F = np.float32
CODES = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
FUNCTIONS = (
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "sigmoid",
    "softplus",
    "softsign",
    "swish",
    "tanh",
)


def program_of(name, seed):
    """One function of a tensor with all codes, with random grids."""
    rng = np.random.default_rng(seed)
    function = getattr(keras.activations, name)
    source = Tensor(
        "x", (256,), F(rng.uniform(0.005, 0.08)), int(rng.integers(-128, 128))
    )
    builder = Builder(None)
    pending = activations._pending(
        builder, name, activations.of_function(function), source, "f"
    )
    assert isinstance(pending, Pending)
    real = (CODES.astype(F) - source.zero_point) * source.scale
    expected = keras.ops.convert_to_numpy(function(real))
    bits = int(rng.choice([4, 8]))
    quantizer = LSQ(bits, signed=bool(expected.min() < 0))
    # Half of the values' range: some saturate.
    quantizer.initialize(expected)
    output = builder.on_grid(pending, quantizer, "f")
    program = Program(
        [source], [output], builder.ops, [output.scale], builder.islands
    )
    return program, output, quantizer, expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_codes(name):
    """The file is the reference's table; that, the function's own."""
    for seed in range(6):
        program, output, quantizer, real = program_of(name, seed)
        (table,) = reference.run(program, [CODES])
        scale = float(keras.ops.convert_to_numpy(quantizer.scale))
        steps = np.clip(
            real.astype(np.float64) / scale, quantizer.qmin, quantizer.qmax
        )
        difference = table.astype(int) - output.zero_point - steps
        assert np.abs(difference).max() < 0.5 + 9 / 1024
        with IsolatedFile(to_bytes(program)) as file:
            assert not file.undelegated
            (made,) = file.run([CODES])
        np.testing.assert_array_equal(made, table)
        assert program.is_exact


def test_a_value_on_a_tie_is_moved():
    """swish(x) / scale = k + 1/2 for one code, which float kernels may round
    either way: a thousandth of a step decides it for all of them.
    """
    program, _, _, real = program_of("swish", 0)
    (source,) = program.inputs
    value = float(np.abs(real).max())
    quantizer = LSQ(8, signed=True)
    quantizer.initialize(real)
    quantizer.log_scale.assign(np.log(value / 20.5))
    scale = float(keras.ops.convert_to_numpy(quantizer.scale))
    assert abs(value / scale - 20.5) < 1e-5
    builder = Builder(None)
    function = activations.of_function(keras.activations.swish)
    pending = activations._pending(builder, "swish", function, source, "f")
    output = builder.on_grid(pending, quantizer, "f")
    assert [op.kind for op in builder.ops][-2:] == ["add", "quantize"]
    shift = builder.ops[-2].inputs[1].data.item() / scale
    assert 0 < abs(shift) <= 8 / 1024
    program = Program([source], [output], builder.ops, [output.scale], [])
    assert program.is_exact
    (table,) = reference.run(program, [CODES])
    with IsolatedFile(to_bytes(program)) as file:
        np.testing.assert_array_equal(file.run([CODES])[0], table)


def test_sums_over_a_tensor_are_not_called_exact():
    """A softmax is no function of single codes: its codes have a bound."""
    source = Tensor("x", (256,), F(0.05), 0)
    builder = Builder(None)
    function = activations.of_function(keras.activations.softmax)
    pending = activations._pending(builder, "softmax", function, source, "f")
    quantizer = LSQ(8, signed=False)
    quantizer.initialize(np.linspace(0, 0.5, 100))
    builder.on_grid(pending, quantizer, "f")
    assert [op.max_steps for op in builder.ops] == [0, 0, 1]
    ((path, reason),) = builder.islands
    assert path == "f" and "may differ" in reason and "1 step" in reason


def test_functions_of_float_tensors_are_not_called_exact():
    """Behind another float kernel there are more than 256 values."""
    source = Tensor("x", (256,))
    builder = Builder(None)
    function = activations.of_function(keras.activations.sigmoid)
    pending = activations._pending(builder, "sigmoid", function, source, "f")
    quantizer = LSQ(8, signed=False)
    quantizer.initialize(np.linspace(0, 1, 100))
    builder.on_grid(pending, quantizer, "f")
    assert [op.max_steps for op in builder.ops] == [0, 1]
