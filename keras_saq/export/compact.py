"""The smallest flatbuffer of a model: what is equal is stored once.

A flatbuffer is a graph of tables, and two of them may point to one third. The
packer of the schema's classes writes everything anew; in a small network the
zero points (eight bytes per channel, all zero), the shapes and the quantization
of tensors that only move codes are then a fifth of the file.
"""

import flatbuffers
import numpy as np

_IDENTIFIER = b"TFL3"
_VECTORS = ("shape", "shapeSignature", "inputs", "outputs")


def to_bytes(model):
    """Packs a `ModelT` of the schema; the model is changed by it.

    Args:
        model: `ai_edge_litert.schema_py_generated.ModelT`.

    Returns:
        The file's bytes.
    """
    _merge_buffers(model)
    for graph in model.subgraphs:
        _merge_constants(model, graph)
        for table in [*graph.tensors, *graph.operators]:
            for name in _VECTORS:
                values = getattr(table, name, None)
                if values is not None:
                    setattr(table, name, np.asarray(values, np.int32))
        for tensor in graph.tensors:
            if tensor.quantization is not None:
                tensor.quantization = _Shared(tensor.quantization)
    builder = _Builder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Writes equal strings, vectors and shared tables once."""

    def __init__(self):
        super().__init__(1024)
        self.written = {}

    def CreateString(self, s, *args, **kwargs):
        text = s.encode() if isinstance(s, str) else bytes(s)
        return self._once(text, super().CreateString, s, *args, **kwargs)

    def CreateNumpyVector(self, x):
        key = (x.dtype.str, x.shape, x.tobytes())
        return self._once(key, super().CreateNumpyVector, x)

    def _once(self, key, write, *args, **kwargs):
        if key not in self.written:
            self.written[key] = write(*args, **kwargs)
        return self.written[key]


class _Shared:
    """Quantization parameters that are written once for equal values."""

    def __init__(self, quantization):
        self._quantization = quantization
        self._key = (
            "quantization",
            np.asarray(quantization.scale).tobytes(),
            np.asarray(quantization.zeroPoint).tobytes(),
            quantization.quantizedDimension,
        )

    def Pack(self, builder):
        return builder._once(self._key, self._quantization.Pack, builder)


def _merge_buffers(model):
    """Keeps one of the buffers with the same bytes; buffer 0 stays empty."""
    kept, numbers, moved = [model.buffers[0]], {}, {0: 0}
    for i, buffer in enumerate(model.buffers[1:], start=1):
        key = b"" if buffer.data is None else np.asarray(buffer.data).tobytes()
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(buffer)
        moved[i] = numbers[key]
    model.buffers = kept
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = moved[tensor.buffer]
    for entry in model.metadata or ():
        entry.buffer = moved[entry.buffer]


def _merge_constants(model, graph):
    """Keeps one of the constants with the same values and quantization."""
    kept, numbers, moved = [], {}, {}
    for i, tensor in enumerate(graph.tensors):
        key = i
        if tensor.buffer and tensor.quantization is None:
            key = (tensor.type, tuple(tensor.shape), tensor.buffer)
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(tensor)
        moved[i] = numbers[key]
    graph.tensors = kept

    def at(indices):
        # -1 is an input that is left out.
        return [moved.get(int(i), int(i)) for i in indices]

    graph.inputs, graph.outputs = at(graph.inputs), at(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = at(op.inputs), at(op.outputs)
    number = model.subgraphs.index(graph)
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == number:
            for entry in [*signature.inputs, *signature.outputs]:
                entry.tensorIndex = moved[entry.tensorIndex]
