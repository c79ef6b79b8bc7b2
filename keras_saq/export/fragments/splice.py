"""Puts a fragment's operators, tensors and constants into a file."""

import copy

import numpy as np

# Fields of options that are numbers of graphs.
_GRAPH_NUMBERS = (
    "bodySubgraphIndex",
    "condSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
    "subgraph",
    "thenSubgraphIndex",
)


def splice(writer, op):
    """Writes the fragment of an op, once for all of its outputs.

    Args:
        writer: what writes the file (`keras_saq.export.flatbuffer`).
        op: an `Op` whose options have the fragment, under `"outputs"` the
            tensors that it makes, and under `"numbers"` which of the
            fragment's outputs they are.
    """
    outputs = op.options["outputs"]
    if writer.knows(outputs[0]):
        return
    _Splice(writer, op).run()


class _Splice:
    def __init__(self, writer, op):
        self._writer = writer
        self._op = op
        self._model = op.options["fragment"].model
        # The first of the fragment's other graphs becomes this one.
        self._first = len(writer.subgraphs)

    def run(self):
        main, *others = self._model.subgraphs
        moved = {}
        for i, tensor in zip(main.inputs, self._op.inputs):
            moved[int(i)] = self._writer.index_of(tensor)
        options = self._op.options
        for number, tensor in zip(options["numbers"], options["outputs"]):
            index = int(main.outputs[number])
            moved[index] = self._writer.index_of(tensor)
        for i, tensor in enumerate(main.tensors):
            if i not in moved:
                moved[i] = self._writer.add_foreign(self._tensor(tensor))
        for operator in _listed(main.operators):
            self._writer.operators.append(self._operator(operator, moved))
        for graph in others:
            graph = copy.copy(graph)
            graph.tensors = [self._tensor(t) for t in graph.tensors]
            same = {i: i for i in range(len(graph.tensors))}
            graph.operators = [
                self._operator(operator, same)
                for operator in _listed(graph.operators)
            ]
            self._writer.subgraphs.append(graph)

    def _tensor(self, tensor):
        tensor = copy.copy(tensor)
        data = self._model.buffers[tensor.buffer].data
        tensor.buffer = 0
        if data is not None and len(data):
            tensor.buffer = self._writer.add_buffer(np.asarray(data))
        name = tensor.name
        name = name.decode() if isinstance(name, bytes) else name or ""
        tensor.name = f"{self._op.path}/{name.partition(';')[0]}"
        return tensor

    def _operator(self, operator, moved):
        operator = copy.copy(operator)
        code = self._model.operatorCodes[operator.opcodeIndex]
        operator.opcodeIndex = self._writer.copied_code_index(code)
        operator.inputs = [moved.get(int(i), -1) for i in operator.inputs]
        operator.outputs = [moved[int(i)] for i in operator.outputs]
        operator.intermediates = None
        options = operator.builtinOptions
        if any(hasattr(options, name) for name in _GRAPH_NUMBERS):
            options = operator.builtinOptions = copy.copy(options)
            for name in _GRAPH_NUMBERS:
                number = getattr(options, name, 0)
                if number:
                    setattr(options, name, self._first + number)
        return operator


def _listed(values):
    return [] if values is None else values
