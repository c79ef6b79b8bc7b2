"""What is in a `.tflite` file, ours or anybody's, read from its bytes."""

import pathlib

import numpy as np

from keras_saq.export.file_report import FileReport
from keras_saq.export.file_report import GraphTensor
from keras_saq.export.file_report import Operation
from keras_saq.export.file_report import StoredTensor
from keras_saq.export.isolated import FileError
from keras_saq.export.isolated import IsolatedFile

_MAGIC = b"TFL3"


def inspect_litert(filepath):
    """Reads any `.tflite` file: operators, types, constants, bytes.

    The file is loaded in a process of its own first. One that is damaged so
    that LiteRT crashes on it is refused; one that LiteRT cannot run here, for
    example for custom operators, is read all the same.

    Args:
        filepath: a `.tflite` file, written by `export_litert` or by anything
            else.

    Returns:
        A `FileReport`.

    Raises:
        ValueError: if it cannot be read or is no sound `.tflite` file.

    Example:

    >>> import keras, keras_saq, numpy as np, tempfile
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> path = tempfile.mkdtemp() + "/m.tflite"
    >>> report = keras_saq.export_litert(q, path)
    >>> keras_saq.inspect_litert(path).operations[1].input_types
    ('INT8', 'INT8', 'INT32')
    """
    try:
        content = pathlib.Path(filepath).read_bytes()
    except OSError as error:
        raise ValueError(
            f"'{filepath}' cannot be read: {error.strerror or error}"
        ) from error
    return FileReport(**read_contents(filepath, content))


def read_contents(filepath, content):
    """The fields of a `FileReport`, of a file's bytes."""
    if content[4:8] != _MAGIC:
        raise ValueError(
            f"'{filepath}' is not a .tflite file: its bytes 4 to 8 are "
            f"{content[4:8]!r}, not {_MAGIC!r}."
        )
    problem, undelegated = None, frozenset()
    try:
        with IsolatedFile(content) as file:
            undelegated = {node.outputs for node in file.undelegated}
    except FileError as error:
        if error.crashed or "not a valid Flatbuffer" in str(error):
            raise _damaged(filepath, error) from error
        problem = str(error)
    try:
        return _parse(filepath, content, problem, undelegated)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise _damaged(filepath, error) from error


def _damaged(filepath, error):
    return ValueError(f"'{filepath}' is damaged: {error}")


def _parse(filepath, content, problem, undelegated):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    types = _names(schema.TensorType)
    operators = _names(schema.BuiltinOperator)
    operations, stored, buffers = [], [], {}
    for number, graph in enumerate(model.subgraphs):
        tensors = graph.tensors or []
        for op in _listed(graph.operators):
            code = model.operatorCodes[op.opcodeIndex]
            name = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if name == "CUSTOM":
                name = _text(code.customCode)
            outputs = [tensors[i] for i in _listed(op.outputs)]
            delegated = None
            if problem is None and number == 0:
                key = tuple(int(i) for i in _listed(op.outputs))
                delegated = key not in undelegated
            operations.append(
                Operation(
                    operator=name,
                    version=code.version,
                    # -1 is an input that is left out.
                    input_types=tuple(
                        types[tensors[i].type]
                        for i in _listed(op.inputs)
                        if i >= 0
                    ),
                    output_types=tuple(types[t.type] for t in outputs),
                    output=_text(outputs[0].name) if outputs else "",
                    shape=_shape(outputs[0]) if outputs else (),
                    is_delegated=delegated,
                )
            )
        for tensor in tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and len(data):
                buffers[tensor.buffer] = len(data)
                name, kind = _text(tensor.name), types[tensor.type]
                shape = tuple(int(n) for n in _listed(tensor.shape))
                stored.append(StoredTensor(name, kind, shape, len(data)))
    first = model.subgraphs[0]
    return {
        "path": str(filepath),
        "file_bytes": len(content),
        "description": _text(model.description),
        "num_subgraphs": len(model.subgraphs),
        "inputs": _edges(first, first.inputs, types),
        "outputs": _edges(first, first.outputs, types),
        "operations": tuple(operations),
        "tensors": tuple(stored),
        "constant_bytes": sum(buffers.values()),
        "problem": problem,
    }


def _edges(graph, indices, types):
    edges = []
    for i in _listed(indices):
        tensor = graph.tensors[i]
        scale = zero_point = None
        quantization = tensor.quantization
        if quantization is not None and len(_listed(quantization.scale)):
            scale = float(quantization.scale[0])
            zero_point = int(quantization.zeroPoint[0])
        edges.append(
            GraphTensor(
                _text(tensor.name),
                types[tensor.type],
                _shape(tensor),
                scale,
                zero_point,
            )
        )
    return tuple(edges)


def _shape(tensor):
    """With -1 for sizes that are open."""
    shape = tensor.shape
    if len(_listed(tensor.shapeSignature)):
        shape = tensor.shapeSignature
    return tuple(int(n) for n in _listed(shape))


def _listed(values):
    return np.zeros(0, int) if values is None else values


def _text(name):
    return (name or b"").decode(errors="replace")


def _names(enum):
    return {v: k for k, v in vars(enum).items() if not k.startswith("_")}
