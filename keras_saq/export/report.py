"""What a LiteRT file holds, read back from its bytes."""

import collections
import dataclasses

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


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
class ExportReport:
    """What `export_litert` wrote.

    Attributes:
        path: the file.
        file_bytes: its size.
        operators: how often each operator occurs, in the order of the file.
        float_operators: operators that compute in float; conversions at the
            edges are not counted.
        tensors: the constants, as `StoredTensor`s.
        islands: `(layer path, reason)` of computations that stay in float.
    """

    path: str
    file_bytes: int
    operators: dict
    float_operators: tuple
    tensors: tuple
    islands: tuple

    @property
    def packed_tensors(self):
        """The constants that are stored with 4 or 2 bits per code."""
        return tuple(t for t in self.tensors if t.type in ("INT4", "INT2"))

    def __str__(self):
        counts = ", ".join(f"{n} {k}" for k, n in self.operators.items())
        floats = ", ".join(self.float_operators) or "nothing"
        lines = [
            f"{self.path}: {self.file_bytes:,} bytes",
            f"operators: {counts}",
            f"computed in float: {floats}",
        ]
        lines += [f"  {path}: {reason}" for path, reason in self.islands]
        lines.append(
            f"packed tensors: {len(self.packed_tensors)} of {len(self.tensors)}"
        )
        lines += [
            f"  {t.name}: {t.type} {list(t.shape)}, {t.num_bytes:,} bytes"
            for t in self.packed_tensors
        ]
        return "\n".join(lines)


def read_report(path, content, islands=()):
    """The report of a file's bytes."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    types = _names(schema.TensorType)
    operators = _names(schema.BuiltinOperator)
    (graph,) = model.subgraphs
    counts, floats = collections.Counter(), []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        name = operators[max(code.builtinCode, code.deprecatedBuiltinCode)]
        counts[name] += 1
        made = [types[graph.tensors[i].type] for i in op.outputs]
        if "FLOAT32" in made and name not in _CONVERSIONS:
            floats.append(name)
    tensors = []
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            tensors.append(
                StoredTensor(
                    tensor.name.decode(),
                    types[tensor.type],
                    tuple(int(n) for n in tensor.shape),
                    len(data),
                )
            )
    return ExportReport(
        path=str(path),
        file_bytes=len(content),
        operators=dict(counts),
        float_operators=tuple(floats),
        tensors=tuple(tensors),
        islands=tuple(islands),
    )


def _names(enum):
    return {v: k for k, v in vars(enum).items() if not k.startswith("_")}
