"""Role, lowering and reference kernel: no row of the table without them."""

import warnings

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.export import reference
from keras_saq.export.kernels import KERNELS
from keras_saq.export.lower import lower_model
from keras_saq.export.lowering.rules import RULES
from keras_saq.layers import roles
from tests import operations

# What has a role and no rule yet: a float fragment in the file. To be shorter.
WITHOUT_RULE = {
    "abs",
    "average_pool_3d",
    "average_pool_operation",
    "broadcast",
    "clip",
    "conv_3d",
    "conv_lstm",
    "global_average_3d",
    "masking",
    "max_pool_3d",
    "max_pool_operation",
    "negative",
    "recurrent_cell",
    "resize",
    "rnn",
    "time_distributed",
    "transposed_3d",
    "upsampling_3d",
}
# Integers for the planner, and float between integers in the file.
IN_FLOAT = {"average_of", "function", "maximum", "minimum"}


def families():
    """Dict from each family to one row that is of it."""
    found = {"product": "ops.Einsum"}
    for name in operations.ROWS:
        if name.endswith(("2D", "2DTranspose")):
            found[family_of(name)] = name
        found.setdefault(family_of(name), name)
    return found


def family_of(name):
    if name.startswith("ops."):
        return roles.OPERATIONS[name.removeprefix("ops.")].family
    row = roles.LAYERS[getattr(keras.layers, name)]
    if callable(row):
        row = roles.find(getattr(keras.layers, name)(*ARGUMENTS[name]))
    return row.family


ARGUMENTS = {"Activation": ("tanh",), "Masking": (), "ReLU": ()}


def test_every_family_has_a_rule_or_is_known_to_have_none():
    cells = {roles.find(keras.layers.LSTMCell(2)).family}
    found = {*families(), *cells}
    assert found - set(RULES) == WITHOUT_RULE
    assert set(RULES) - found == set()


@pytest.mark.parametrize(
    "name", [n for f, n in families().items() if f in RULES]
)
def test_a_role_has_a_lowering_and_the_reference_its_kernels(name):
    function, shape = operations.of(name)
    rng = np.random.default_rng(0)
    if name.endswith("Embedding"):
        inputs = keras.Input(shape, dtype="int32")
        x = rng.integers(0, 9, (4, *shape)).astype("int32")
        outputs = function(inputs)
    else:
        inputs = keras.Input(shape)
        x = rng.normal(size=(4, *shape)).astype("float32")
        outputs = function(keras.layers.Dense(shape[-1])(inputs))
    role = roles.find(outputs._keras_history.operation)
    model = keras.Model(inputs, outputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*stay in float", UserWarning)
        q = keras_saq.quantize_model(model, "w8a8", calibration=x)
    program = lower_model(q)
    kinds = {op.kind for op in program.ops}
    assert kinds <= set(KERNELS)
    assert not any(kind.endswith("fragment") for kind in kinds)
    if role.keeps_grid or role.accumulates or role.integer:
        assert role.family in IN_FLOAT or not program.islands
    (made,) = reference.run(program, [x])
    expected = q.predict(x, verbose=0)
    assert made.shape == expected.shape
    # Ties that float32 breaks otherwise: two steps; of floats, their rounding.
    step = program.output_scales[0]
    tolerance = 2.01 * step if step else 0.05 * abs(expected).max()
    np.testing.assert_allclose(made, expected, rtol=0, atol=tolerance)
