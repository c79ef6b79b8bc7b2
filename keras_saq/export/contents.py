"""What is in a `.tflite` file, ours or anybody's, read from its bytes."""

import collections
import dataclasses
import json
import pathlib

import numpy as np

from keras_saq.export.isolated import FileError
from keras_saq.export.isolated import IsolatedFile
from keras_saq.table import format_table

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_NAME_LENGTH = 48
_MAGIC = b"TFL3"


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A constant of the file.

    Attributes:
        name: its name.
        type: LiteRT's name of its type, e.g. `"INT4"`.
        shape: its shape.
        num_bytes: bytes it takes in the file.
    """

    name: str
    type: str
    shape: tuple
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class GraphTensor:
    """An input or output of the file.

    Attributes:
        name: its name.
        type: LiteRT's name of its type.
        shape: its shape; -1 where it is open.
        scale: of its codes, or `None`.
        zero_point: of its codes, or `None`.
    """

    name: str
    type: str
    shape: tuple
    scale: float | None
    zero_point: int | None

    def __str__(self):
        text = f"{self.name} {self.type} {list(self.shape)}"
        if self.scale is not None:
            text += f", scale {self.scale:g}, zero point {self.zero_point}"
        return text


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator of the file.

    Attributes:
        operator: LiteRT's name of it, or the name of a custom one.
        version: of the operator.
        input_types: types of its inputs, in order.
        output_types: types of its outputs.
        output: name of its first output.
        shape: that output's shape.
        is_delegated: whether XNNPACK takes it here; `None` if the file could
            not be loaded.
    """

    operator: str
    version: int
    input_types: tuple
    output_types: tuple
    output: str
    shape: tuple
    is_delegated: bool | None = None


@dataclasses.dataclass(frozen=True)
class FileReport:
    """What a `.tflite` file holds; printed, a page of text.

    Attributes:
        path: the file.
        file_bytes: its size.
        description: what its writer says about it.
        num_subgraphs: how many graphs it has; all are counted.
        inputs: `GraphTensor`s of the first graph.
        outputs: `GraphTensor`s of the first graph.
        operations: an `Operation` per operator, in the order of the file.
        tensors: the constants, as `StoredTensor`s.
        constant_bytes: bytes of all constants, shared ones counted once.
        problem: why LiteRT does not load it here; `None` if it does.
    """

    path: str
    file_bytes: int
    description: str
    num_subgraphs: int
    inputs: tuple
    outputs: tuple
    operations: tuple
    tensors: tuple
    constant_bytes: int
    problem: str | None

    @property
    def operators(self):
        """How often each operator occurs, in the order of the file."""
        return dict(collections.Counter(o.operator for o in self.operations))

    @property
    def float_operators(self):
        """Operators that compute in float; conversions are not counted."""
        return tuple(
            o.operator
            for o in self.operations
            if "FLOAT32" in o.output_types and o.operator not in _CONVERSIONS
        )

    @property
    def undelegated(self):
        """The operators that XNNPACK does not take."""
        return tuple(
            o.operator for o in self.operations if o.is_delegated is False
        )

    @property
    def packed_tensors(self):
        """The constants that are stored with 4 or 2 bits per code."""
        return tuple(t for t in self.tensors if t.type in ("INT4", "INT2"))

    @property
    def structure_bytes(self):
        """Bytes of everything but constants: graph, names, scales."""
        return self.file_bytes - self.constant_bytes

    def to_dict(self):
        """Everything, of types that JSON has."""
        return dataclasses.asdict(self) | {
            "operators": self.operators,
            "float_operators": self.float_operators,
            "undelegated": self.undelegated,
            "structure_bytes": self.structure_bytes,
        }

    def to_json(self):
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self):
        return "\n".join([*self._headlines(), "", *self._tables()])

    def _headlines(self):
        counts = ", ".join(f"{n} {k}" for k, n in self.operators.items())
        floats = ", ".join(self.float_operators) or "nothing"
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes",
            *[f"input: {t}" for t in self.inputs],
            *[f"output: {t}" for t in self.outputs],
            f"operators: {counts}",
            f"computed in float: {floats}",
        ]
        if self.problem is not None:
            lines.append(f"LiteRT does not load it here: {self.problem}")
        else:
            missing = ", ".join(dict.fromkeys(self.undelegated)) or "nothing"
            lines.append(f"not taken by XNNPACK: {missing}")
        lines.append(
            f"packed tensors: {len(self.packed_tensors)} of {len(self.tensors)}"
        )
        return lines

    def _tables(self):
        rows = [
            (
                _short(t.name),
                t.type,
                "x".join(map(str, t.shape)),
                f"{t.num_bytes:,}",
            )
            for t in sorted(self.tensors, key=lambda t: -t.num_bytes)
        ]
        rows.append(
            ("graph, names, scales", "", "", f"{self.structure_bytes:,}")
        )
        yield format_table(("constant", "type", "shape", "bytes"), rows, 3)
        yield ""
        rows = [
            (
                _short(o.output),
                o.operator,
                ", ".join(_runs(o.input_types)) + " -> " + o.output_types[0]
                if o.output_types
                else "",
                "x".join(map(str, o.shape)),
                {None: "", True: "yes", False: "no"}[o.is_delegated],
            )
            for o in self.operations
        ]
        header = ("output", "operator", "types", "shape", "XNNPACK")
        yield format_table(header, rows, 5)


def _short(name):
    """Converters join the names of all that they fused; both ends will do."""
    if len(name) <= _NAME_LENGTH:
        return name
    half = _NAME_LENGTH // 2
    return f"{name[:half]}...{name[3 - half :]}"


def _runs(names):
    """`INT8, INT8, INT8` as `3 INT8`."""
    runs = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return [name if n == 1 else f"{n} {name}" for name, n in runs]


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
