"""The structure of a `.tflite` file, read with every step checked.

A damaged file is found out here, in this process, before LiteRT sees it. Each
offset has to lie in the file, each index has to be of something, constants
have to be as long as their shapes say, and the whole has to be readable in
bounded time: a flatbuffer may point to one table from many places, so that a
small file can be endless to who follows every pointer.

Numbers of fields are those of LiteRT's schema (`schema.fbs`).
"""

import dataclasses
import functools
import math
import struct

import numpy as np

MAGIC = b"TFL3"
# Tables and list entries that are followed: this many, and some per byte.
_STEPS = 400_000
_BYTES_PER_STEP = 8
_MOST_DIMENSIONS = 32
_BITS = {
    **{"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4},
    **{"BOOL": 8, "INT8": 8, "UINT8": 8, "INT16": 16, "UINT16": 16},
    **{"FLOAT16": 16, "BFLOAT16": 16, "INT32": 32, "UINT32": 32},
    **{"FLOAT32": 32, "INT64": 64, "UINT64": 64, "FLOAT64": 64},
    **{"COMPLEX64": 64, "COMPLEX128": 128},
}


class Damaged(ValueError):
    """A file that is no sound model; the message says what is wrong."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        name: its name, as bytes.
        type: LiteRT's name of its type.
        shape: its shape.
        signature: its shape with -1 where it is open; empty if it is not.
        buffer: number of its buffer; 0 has no content.
        scale: float32 per channel, or empty.
        zero_point: int64, as many, or empty.
    """

    name: bytes
    type: str
    shape: tuple
    signature: tuple
    buffer: int
    scale: np.ndarray
    zero_point: np.ndarray

    @property
    def elements(self):
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def num_bytes(self):
        """Its size in memory; what has no fixed size counts nothing."""
        return (self.elements * _BITS.get(self.type, 0) + 7) // 8


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator: number of its code, and of its tensors (-1: left out)."""

    code: int
    inputs: tuple
    outputs: tuple


@dataclasses.dataclass(frozen=True)
class OperatorCode:
    """Name of a kind of operator, of a custom one its own, and its version."""

    name: str
    version: int


@dataclasses.dataclass(frozen=True)
class Graph:
    """Tensors and operators of a graph, and which tensors are its edges."""

    tensors: tuple
    operators: tuple
    inputs: tuple
    outputs: tuple


@dataclasses.dataclass(frozen=True)
class Structure:
    """A sound file.

    Attributes:
        description: what its writer says of it, as bytes.
        graphs: tuple of `Graph`; the first is run.
        codes: tuple of `OperatorCode`.
        buffers: sizes of the buffers in bytes.
    """

    description: bytes
    graphs: tuple
    codes: tuple
    buffers: tuple

    @functools.cached_property
    def tensor_bytes(self):
        """Memory of all tensors that are no constants, of one sample."""
        return sum(
            tensor.num_bytes
            for graph in self.graphs
            for tensor in graph.tensors
            if not self.buffers[tensor.buffer]
        )

    @functools.cached_property
    def multiplications(self):
        """About how many one inference takes, loops taken once."""
        total = 0
        for graph in self.graphs:
            for operator in graph.operators:
                made = max(
                    [graph.tensors[i].elements for i in operator.outputs],
                    default=0,
                )
                read = [graph.tensors[i] for i in operator.inputs if i >= 0]
                last = graph.tensors[operator.outputs[0]] if made else None
                channels = last.shape[-1] if made and last.shape else 1
                total += made + sum(
                    t.elements * made // max(channels, 1)
                    for t in read
                    if len(t.shape) > 1 and self.buffers[t.buffer]
                )
        return total


def read_structure(content):
    """The `Structure` of a file's bytes.

    Args:
        content: the bytes.

    Raises:
        Damaged: if it is no sound file.

    Example:

    >>> from keras_saq.export.structure import read_structure
    >>> try:
    ...     read_structure(b"half" + b"TFL3")
    ... except ValueError as error:
    ...     print(error)
    an offset leads out of the file
    """
    return _read(bytes(content))


# The same bytes are read for a report and again for each comparison.
@functools.lru_cache(maxsize=1)
def _read(content):
    return _Reader(content).structure()


class _Reader:
    def __init__(self, content):
        from ai_edge_litert import schema_py_generated as schema

        self._content = content
        self._left = _STEPS + len(content) // _BYTES_PER_STEP
        self._types = _names(schema.TensorType)
        self._operators = _names(schema.BuiltinOperator)

    def structure(self):
        if self._content[4:8] != MAGIC:
            raise Damaged(f"its bytes 4 to 8 are not {MAGIC!r}")
        model = self._table(self._follow(0))
        buffers = tuple(map(self._buffer, self._tables(model, 4)))
        codes = tuple(map(self._code, self._tables(model, 1)))
        graphs = tuple(
            self._graph(entry, buffers, codes)
            for entry in self._tables(model, 2)
        )
        if not graphs:
            raise Damaged("it has no graph")
        for entry in self._tables(model, 7):
            self._check_signature(entry, graphs)
        return Structure(self._bytes(model, 3), graphs, codes, buffers)

    # Parts of a model.

    def _buffer(self, table):
        """Its size; that of a file beyond 2 GB lies behind the flatbuffer."""
        offset = self._scalar(table, 1, "<Q")
        size = self._scalar(table, 2, "<Q")
        if offset > 1:
            if offset + size > len(self._content):
                raise Damaged("a buffer leads out of the file")
            return size
        return len(self._vector(table, 0, np.uint8))

    def _code(self, table):
        number = max(self._scalar(table, 0, "<b"), self._scalar(table, 3, "<i"))
        name = self._operators.get(number)
        if name is None:
            name = f"operator {number}"
        if name == "CUSTOM":
            name = self._bytes(table, 1).decode(errors="replace")
        return OperatorCode(name, self._scalar(table, 2, "<i", 1))

    def _graph(self, table, buffers, codes):
        tensors = tuple(
            self._tensor(entry, buffers) for entry in self._tables(table, 0)
        )
        operators = []
        for entry in self._tables(table, 3):
            code = self._scalar(entry, 0, "<I")
            _check_index("operator code", code, codes)
            operators.append(
                Operator(
                    code,
                    self._indices(entry, 1, tensors, -1),
                    self._indices(entry, 2, tensors),
                )
            )
        return Graph(
            tensors,
            tuple(operators),
            self._indices(table, 1, tensors),
            self._indices(table, 2, tensors),
        )

    def _tensor(self, table, buffers):
        number = self._scalar(table, 1, "<b")
        if number not in self._types:
            raise Damaged(f"a tensor has the unknown type {number}")
        buffer = self._scalar(table, 2, "<I")
        _check_index("buffer", buffer, buffers)
        quantization = self._field(table, 4)
        scale, points = np.zeros(0, np.float32), np.zeros(0, np.int64)
        if quantization:
            quantization = self._table(self._follow(quantization))
            scale = self._vector(quantization, 2, np.float32)
            points = self._vector(quantization, 3, np.int64)
            if not (np.isfinite(scale).all() and (scale >= 0).all()):
                raise Damaged("a scale is negative or not finite")
        tensor = Tensor(
            self._bytes(table, 3),
            self._types[number],
            self._shape(table, 0, 0),
            self._shape(table, 7, -1),
            buffer,
            scale,
            points,
        )
        is_fixed = tensor.type in _BITS and not self._field(table, 6)
        there = buffers[buffer]
        if there and is_fixed and there != tensor.num_bytes:
            raise Damaged(
                f"the constant {_shown(tensor.name)} of type {tensor.type} and "
                f"shape {list(tensor.shape)} takes {tensor.num_bytes:,} bytes, "
                f"and {there:,} are stored"
            )
        return tensor

    def _shape(self, table, slot, lowest):
        sizes = self._vector(table, slot, np.int32)
        if len(sizes) > _MOST_DIMENSIONS or (sizes < lowest).any():
            raise Damaged("a tensor's shape is none")
        return tuple(sizes.tolist())

    def _check_signature(self, table, graphs):
        number = self._scalar(table, 4, "<I")
        _check_index("graph", number, graphs)
        for slot in (0, 1):
            for entry in self._tables(table, slot):
                index = self._scalar(entry, 1, "<I")
                _check_index("tensor", index, graphs[number].tensors)

    def _indices(self, table, slot, tensors, lowest=0):
        values = self._vector(table, slot, np.int32)
        self._step(len(values))
        if len(values) and not (
            lowest <= values.min() and values.max() < len(tensors)
        ):
            raise Damaged("an operator or graph has a tensor that is none")
        return tuple(values.tolist())

    # The flatbuffer below.

    def _step(self, count=1):
        self._left -= count
        if self._left < 0:
            raise Damaged("its tables have more entries than it has bytes for")

    def _unpack(self, form, position):
        if not 0 <= position <= len(self._content) - struct.calcsize(form):
            raise Damaged("an offset leads out of the file")
        return struct.unpack_from(form, self._content, position)[0]

    def _follow(self, position):
        return position + self._unpack("<I", position)

    def _table(self, position):
        """`(position, position of its fields' offsets, their number)`."""
        self._step()
        fields = position - self._unpack("<i", position)
        size = self._unpack("<H", fields)
        return position, fields, size

    def _field(self, table, slot):
        """Where a field is; 0 if it has the value that it usually has."""
        position, fields, size = table
        place = 4 + 2 * slot
        if place + 2 > size:
            return 0
        offset = self._unpack("<H", fields + place)
        return position + offset if offset else 0

    def _scalar(self, table, slot, form, usual=0):
        place = self._field(table, slot)
        return self._unpack(form, place) if place else usual

    def _list(self, table, slot, item_bytes):
        """Place and length of a list."""
        place = self._field(table, slot)
        if not place:
            return 0, 0
        place = self._follow(place)
        count = self._unpack("<I", place)
        if place + 4 + count * item_bytes > len(self._content):
            raise Damaged("a list is longer than the file")
        return place + 4, count

    def _vector(self, table, slot, dtype):
        self._step()
        dtype = np.dtype(dtype).newbyteorder("<")
        place, count = self._list(table, slot, dtype.itemsize)
        return np.frombuffer(self._content, dtype, count, place)

    def _bytes(self, table, slot):
        place, count = self._list(table, slot, 1)
        self._step(1 + count // _BYTES_PER_STEP)
        return self._content[place : place + count]

    def _tables(self, table, slot):
        place, count = self._list(table, slot, 4)
        for i in range(count):
            yield self._table(self._follow(place + 4 * i))


def _check_index(what, index, of):
    if not 0 <= index < len(of):
        raise Damaged(f"it names {what} {index}, and has {len(of)} of them")


def _shown(name):
    return f"'{name[:60].decode(errors='replace')}'"


def _names(enum):
    return {v: k for k, v in vars(enum).items() if not k.startswith("_")}
