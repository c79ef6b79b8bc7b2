"""`FileReport`: what a `.tflite` file holds, as data and as text."""

import collections
import dataclasses
import json

from keras_saq.plain_text import printable_lines
from keras_saq.table import format_table

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_NAME_LENGTH = 48


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
        lines = [*self._headlines(), "", *self._tables()]
        return printable_lines("\n".join(lines))

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
