"""Which files have kernels that round their float input themselves."""

from keras_saq.export.contents import read_contents
from keras_saq.export.input_shapes import open_inputs
from keras_saq.export.input_shapes import shapes_in_file
from keras_saq.export.kernels import dynamic
from keras_saq.export.lower import lower_model

_OPERATORS = {k.operator for k in dynamic.KERNELS.values()}


def program_of(filepath, content, model):
    """The program of a model, in the form in which a file has it.

    Args:
        filepath: what errors call the file.
        content: the file's bytes.
        model: the model it was written from.

    Returns:
        The float-in, float-out `Program`.

    Raises:
        ValueError: if the file is damaged, or the model not quantized.
    """
    shapes = None
    if open_inputs(model):
        contents = read_contents(filepath, content)
        shapes = shapes_in_file(contents["inputs"])
    program = lower_model(model, input_shapes=shapes)
    if not any(
        op.kind == "dequantize" and _is_constant(op) for op in program.ops
    ):
        return program
    operations = read_contents(filepath, content)["operations"]
    if any(_reads_codes(operation) for operation in operations):
        return lower_model(model, dynamic_range=True, input_shapes=shapes)
    return program


def require_dynamic(program):
    """Raises if no kernel of a program rounds its input."""
    if not any(op.kind in dynamic.KERNELS for op in program.ops):
        raise ValueError(
            "`dynamic_range=True` is for kernels with quantized weights and "
            "float inputs, as the presets 'w8' and 'w4' make them; this model "
            "has no Dense and no convolution of that kind. Leave it away: "
            "quantized activations have learned ranges."
        )


def _is_constant(op):
    return op.inputs[0].is_constant


def _reads_codes(operation):
    types = set(operation.input_types)
    return (
        operation.operator in _OPERATORS
        and "FLOAT32" in types
        and not types.isdisjoint(("INT8", "INT4", "INT2"))
    )
