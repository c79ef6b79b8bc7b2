"""Integer inputs and outputs of a program, where the user asks for them."""

import dataclasses

from keras_saq.export.program import Op
from keras_saq.export.program import Tensor

TYPES = ("float32", "int8", "uint8")
_UINT8_OFFSET = 128


def with_io_types(program, input_type, output_type):
    """The program with inputs and outputs of the given types.

    Args:
        program: a `Program` with float inputs and outputs.
        input_type: `"float32"`, `"int8"` or `"uint8"`.
        output_type: the same for the outputs.

    Returns:
        A new `Program`.
    """
    for name, value in (("input", input_type), ("output", output_type)):
        if value not in TYPES:
            raise ValueError(
                f"`{name}_type` must be one of {list(TYPES)}. "
                f"Received: {name}_type={value!r}"
            )
    ops = list(program.ops)
    inputs = program.inputs
    if input_type != "float32":
        inputs = [
            t if t.dtype else _integer_input(t, ops, input_type) for t in inputs
        ]
    outputs = program.outputs
    if output_type != "float32":
        outputs = [_integer_output(t, ops, output_type) for t in outputs]
    return dataclasses.replace(program, inputs=inputs, outputs=outputs, ops=ops)


def _integer_input(tensor, ops, input_type):
    readers = [op for op in ops if tensor in op.inputs]
    if len(readers) != 1 or readers[0].kind != "quantize":
        raise ValueError(
            f"The input '{tensor.name}' cannot be {input_type}: "
            f"{len(readers)} kernels read it, each with a scale of its own. "
            "Use `input_type='float32'`."
        )
    (reader,) = readers
    position = ops.index(reader)
    codes = reader.output
    if input_type == "int8":
        codes.name = tensor.name
        del ops[position]
        return codes
    shifted = _as_uint8(codes, tensor.name)
    ops[position] = Op("requantize", [shifted], codes, path=reader.path)
    return shifted


def _integer_output(tensor, ops, output_type):
    maker = next((op for op in ops if op.output is tensor), None)
    if maker is None or maker.kind != "dequantize":
        raise ValueError(
            f"The output '{tensor.name}' cannot be {output_type}: it is "
            f"computed in float. Use `output_type='float32'`, or export a "
            "model that ends with its logits."
        )
    (codes,) = maker.inputs
    position = ops.index(maker)
    if output_type == "int8":
        del ops[position]
        return codes
    shifted = _as_uint8(codes, tensor.name)
    ops[position] = Op("requantize", [codes], shifted, path=maker.path)
    return shifted


def _as_uint8(tensor, name):
    return Tensor(
        name,
        tensor.shape,
        tensor.scale,
        tensor.zero_point + _UINT8_OFFSET,
        is_unsigned=tensor.is_unsigned,
        is_uint8=True,
    )
