"""What is in a `.tflite` file, ours or anybody's, read from its bytes."""

import pathlib

from keras_saq.export.file_report import FileReport
from keras_saq.export.file_report import GraphTensor
from keras_saq.export.file_report import Operation
from keras_saq.export.file_report import StoredTensor
from keras_saq.export.isolated import FileError
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.structure import MAGIC
from keras_saq.export.structure import Damaged
from keras_saq.export.structure import read_structure
from keras_saq.plain_text import printable


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
    if content[4:8] != MAGIC:
        raise ValueError(
            f"'{filepath}' is not a .tflite file: its bytes 4 to 8 are "
            f"{content[4:8]!r}, not {MAGIC!r}."
        )
    try:
        structure = read_structure(content)
    except Damaged as error:
        raise _damaged(filepath, error) from error
    problem, undelegated = None, frozenset()
    try:
        with IsolatedFile(content) as file:
            undelegated = {node.outputs for node in file.undelegated}
    except FileError as error:
        if error.crashed or "not a valid Flatbuffer" in str(error):
            raise _damaged(filepath, error) from error
        problem = str(error)
    return {
        "path": str(filepath),
        "file_bytes": len(content),
        **_parsed(structure, problem, undelegated),
    }


def _damaged(filepath, error):
    return ValueError(f"'{filepath}' is damaged: {error}")


def _parsed(structure, problem, undelegated):
    operations, stored, buffers = [], [], {}
    for number, graph in enumerate(structure.graphs):
        tensors = graph.tensors
        for op in graph.operators:
            code = structure.codes[op.code]
            outputs = [tensors[i] for i in op.outputs]
            delegated = None
            if problem is None and number == 0:
                delegated = op.outputs not in undelegated
            operations.append(
                Operation(
                    operator=printable(code.name),
                    version=code.version,
                    # -1 is an input that is left out.
                    input_types=tuple(
                        tensors[i].type for i in op.inputs if i >= 0
                    ),
                    output_types=tuple(t.type for t in outputs),
                    output=_text(outputs[0].name) if outputs else "",
                    shape=_shape(outputs[0]) if outputs else (),
                    is_delegated=delegated,
                )
            )
        for tensor in tensors:
            size = structure.buffers[tensor.buffer]
            if size:
                buffers[tensor.buffer] = size
                stored.append(
                    StoredTensor(
                        _text(tensor.name), tensor.type, tensor.shape, size
                    )
                )
    first = structure.graphs[0]
    return {
        "description": _text(structure.description),
        "num_subgraphs": len(structure.graphs),
        "inputs": _edges(first, first.inputs),
        "outputs": _edges(first, first.outputs),
        "operations": tuple(operations),
        "tensors": tuple(stored),
        "constant_bytes": sum(buffers.values()),
        "problem": problem,
    }


def _edges(graph, indices):
    edges = []
    for i in indices:
        tensor = graph.tensors[i]
        scale = zero_point = None
        if len(tensor.scale):
            scale = float(tensor.scale[0])
            points = tensor.zero_point
            zero_point = int(points[0]) if len(points) else 0
        edges.append(
            GraphTensor(
                _text(tensor.name),
                tensor.type,
                _shape(tensor),
                scale,
                zero_point,
            )
        )
    return tuple(edges)


def _shape(tensor):
    """With -1 for sizes that are open."""
    return tensor.signature or tensor.shape


def _text(name):
    """A name as it may be printed, and as JSON has it too."""
    return printable(name.decode(errors="replace"))
