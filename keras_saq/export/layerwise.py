"""Every tensor inside of a file, beside the reference's and Keras's own."""

import contextlib
import re

import keras
import numpy as np
from keras import tree

from keras_saq.export import compact
from keras_saq.export import reference
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.kernels import KERNELS
from keras_saq.export.kernels import dynamic
from keras_saq.export.parity import LayerParity
from keras_saq.export.steps import in_steps
from keras_saq.export.steps import tolerance_of
from keras_saq.models.graph import Graph


def compare_layers(content, program, model, x, inputs, fed):
    """A `LayerParity` for each integer tensor of a file, and its outputs.

    The reference is given the file's own integers, operator by operator, so
    that one wrong operator is one row, whatever follows it. It is given the
    floats, too, that a kernel rounds itself: their last bits decide codes.

    Args:
        content: the file's bytes.
        program: the float-in, float-out program of the model.
        model: the Keras model.
        x: inputs of the Keras model, in its own structure.
        inputs: the same, as a list of arrays.
        fed: the same, as the file takes them.

    Returns:
        A list in the order of the program, and what the reference makes of
        the file's integers at each output.
    """
    names, values = _file_tensors(content, fed)
    found = dict(zip(names, values))
    rounded = {
        id(op.inputs[0]) for op in program.ops if op.kind in dynamic.KERNELS
    }
    given = {
        op.output: found[op.output.name]
        for op in program.ops
        if op.output.name in found
        and (not op.output.is_float or id(op.output) in rounded)
    }
    kept = []
    outputs = reference.run(program, inputs, kept, given)
    layers = _keras_values(model, x)
    sources = _sources(program, layers)
    rows = [
        _compare(op, made, given[op.output], layers.get(sources.get(id(op))))
        for op, made in kept
        if op.output in given
    ]
    return rows, outputs


def _compare(op, made, actual, expected):
    scale = op.output.scale
    if op.output.is_float:
        difference, bound = in_steps(actual, made, scale), tolerance_of(scale)
    else:
        difference = np.abs(actual.astype(np.float64) - made)
        bound = float(op.max_steps)
    row = {
        "name": op.output.name,
        "operator": KERNELS[op.kind].operator,
        "reference_max_lsb": float(difference.max(initial=0)),
        "bound": bound,
        "max_lsb": None,
        "mean_lsb": None,
        "exact": None,
    }
    if expected is not None and expected.size == actual.size:
        codes = actual.astype(np.float64) - op.output.zero_point
        real = expected.reshape(codes.shape).astype(np.float64)
        steps = np.abs(codes - real / np.float64(scale)).round(3)
        row["max_lsb"] = float(np.rint(steps.max(initial=0)))
        row["mean_lsb"] = float(steps.mean())
        row["exact"] = float((steps < 0.5).mean())
    return LayerParity(**row)


def _file_tensors(content, fed):
    """Names and values of all tensors that the file's operators make.

    XNNPACK keeps what lies between two of its operators to itself, unless it
    is an output of the file; so the file is given more outputs.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    made = [int(i) for op in graph.operators for i in op.outputs]
    graph.outputs = made
    model.signatureDefs = []
    names = [graph.tensors[i].name.decode() for i in made]
    with IsolatedFile(compact.to_bytes(model)) as file:
        return names, file.run(fed)


def _sources(program, layers):
    """Id of an op -> path of the Keras call whose output its tensor is.

    Tensors have the path of their layer; where a tensor is clipped in several
    stages, those behind the first have a number, and the last one counts.
    Where a float activation of the same layer follows, none is its output.
    """
    last = {}
    for op in program.ops:
        name = op.output.name
        path = name if name in layers else re.sub(r"_\d+$", "", name)
        if path in layers and not op.output.is_float:
            last[path] = op
        elif op.output.is_float and op.kind != "dequantize":
            last.pop(name.rpartition("/")[0], None)
    return {id(op): path for path, op in last.items()}


def _keras_values(model, x):
    """Path of a call -> what the Keras layer there made."""
    graph = Graph(model)
    with _recording(graph.sites) as calls:
        x = tree.map_structure(keras.ops.convert_to_tensor, x)
        model(x, training=False)
    values = {}
    for site in graph.sites:
        place = graph.sites_of(site.operation).index(site)
        made = calls.get(id(site.operation), [])
        if place < len(made):
            values[site.path] = made[place]
    return values


@contextlib.contextmanager
def _recording(sites):
    """Records what each operation makes: id -> arrays, call by call."""
    calls, changed = {}, {}

    def recorded(operation):
        call = operation.call

        def record(*args, **kwargs):
            made = call(*args, **kwargs)
            first = tree.flatten(made)[0]
            array = keras.ops.convert_to_numpy(first)
            calls.setdefault(id(operation), []).append(array)
            return made

        return record

    for site in sites:
        operation = site.operation
        if id(operation) not in changed:
            changed[id(operation)] = operation
            # In the instance, past Keras's tracking of attributes.
            operation.__dict__["call"] = recorded(operation)
    try:
        yield calls
    finally:
        for operation in changed.values():
            del operation.__dict__["call"]
