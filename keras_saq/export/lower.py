"""From a quantized Keras model to an integer program.

Walks the model's graph once. Layers that one kernel computes are collected
(`Pending`) until a quantizer gives the output its scale. What no integer
kernel computes is a declared float island, or refused by name.
"""

import dataclasses

import keras
from keras import tree

from keras_saq.export.fragments import find_groups
from keras_saq.export.fragments.convert import file_dtype
from keras_saq.export.lowering import activations
from keras_saq.export.lowering import fragment
from keras_saq.export.lowering.builder import Builder
from keras_saq.export.lowering.rules import lower_site
from keras_saq.export.lowering.rules import why_float
from keras_saq.export.pending import Pending
from keras_saq.export.program import Program
from keras_saq.export.refusals import refuse_impossible
from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.operation import OperationLayer
from keras_saq.models import quantized_layers
from keras_saq.models import require_calibrated
from keras_saq.models.graph import Graph
from keras_saq.models.wrapper import inner_model

STORAGE = ("exact", "small", "int8")


def lower(model, storage="exact", dynamic_range=False, input_shapes=None):
    """The integer program of a calibrated quantized model.

    Args:
        model: a model from `keras_saq.quantize_model`.
        storage: `"exact"`, `"small"` or `"int8"`, see `export_litert`.
        dynamic_range: see `export_litert`.
        input_shapes: list of shapes without the batch axis, or `None`.

    Returns:
        A `Program` whose inputs and outputs are float, or indices.

    Raises:
        ValueError: if a layer has no kernel; names all of them.
    """
    graph = Graph(model, input_shapes=input_shapes)
    refuse_impossible(graph)
    return _Lowering(graph, storage, dynamic_range).program


class _Lowering:
    def __init__(self, graph, storage, dynamic_range):
        self._graph = graph
        self._builder = builder = Builder(graph, storage, dynamic_range)
        self._values = {}
        inputs = []
        for name, value in zip(graph.input_names, graph.inputs):
            dtype = file_dtype(value.dtype)
            tensor = builder.tensor(
                name,
                value.shape[1:],
                dtype=None if dtype == "float32" else dtype,
            )
            self._values[value] = tensor
            inputs.append(tensor)
        groups = find_groups(graph, why_float)
        for site in graph.sites:
            group = groups.get(site)
            if group is None:
                made = self._lower(site)
                self._values.update(zip(site.outputs, made))
            elif site is group.sites[0]:
                self._lower_group(group)
        outputs, scales = [], []
        for value in graph.outputs:
            tensor, scale = self._output(value, outputs)
            outputs.append(tensor)
            scales.append(scale)
        self.program = Program(
            inputs,
            outputs,
            _read(builder.ops, outputs),
            scales,
            builder.islands,
            graph.output_names,
        )

    def _output(self, value, taken):
        """A float tensor of its own, and the scale of the codes behind it."""
        builder = self._builder
        result = self._values[value]
        scale = None if isinstance(result, Pending) else result.scale
        tensor = result
        if _is_real(result):
            tensor = builder.in_float(result, value.name)
        if tensor in taken:
            name = f"{value.name}/again"
            tensor = builder.move("reshape", tensor, tensor.shape, name)
        if builder.maker(tensor) is None:
            # A file's output is not one of its inputs.
            tensor = builder.move("reshape", tensor, tensor.shape, value.name)
        return tensor, scale

    def _lower(self, site):
        """What a site makes: `Tensor`s and `Pending`s."""
        layer, builder = site.operation, self._builder
        made = lower_site(builder, site, self._read(site, site.inputs))
        if not isinstance(made, list):
            made = [made]
        made = [self._finished(site, layer, value) for value in made]
        return [self._shared(v, t) for v, t in zip(site.outputs, made)]

    def _lower_group(self, group):
        inputs = self._read(group.sites[0], group.inputs)
        made = fragment.lower(self._builder, group, inputs)
        for value, made in zip(group.outputs, made):
            layer = value.producer.operation
            made = self._quantized(value.producer, layer, made)
            self._values[value] = self._shared(value, made)

    def _read(self, site, values):
        """What a site reads, behind the quantizer of its input."""
        layer, builder = site.operation, self._builder
        inputs = [_copy(self._values[value]) for value in values]
        if isinstance(layer, Quantized) and layer.input_quantizer is not None:
            quantized = _first_argument(site)
            inputs = [
                builder.on_grid(t, layer.input_quantizer, f"{site.path}/input")
                if value in quantized and _is_real(t)
                else t
                for value, t in zip(values, inputs)
            ]
        return inputs

    def _shared(self, value, made):
        """A float result that several layers read is computed once."""
        if not isinstance(made, Pending):
            return made
        is_float = all(t.is_float for t in made.inputs)
        if is_float and len(self._graph.consumers(value)) > 1:
            return self._builder.in_float(made, made.path)
        return made

    def _finished(self, site, layer, value):
        """A result, behind the activation and quantizers of its layer."""
        builder = self._builder
        if roles.accumulates(layer) and roles.activation_of(layer) == "other":
            if getattr(layer, "logits_quantizer", None) is not None:
                value = builder.on_grid(
                    value, layer.logits_quantizer, site.path
                )
            value = activations.lower_function(builder, site, value)
        return self._quantized(site, layer, value)

    def _quantized(self, site, layer, value):
        """A result, behind the output quantizer of its layer."""
        quantizer = getattr(layer, "output_quantizer", None)
        if isinstance(layer, Quantized) and quantizer is not None:
            if _is_real(value):
                return self._builder.on_grid(value, quantizer, site.path)
        return value


def _read(ops, outputs):
    """The ops whose results are read, as the last state of an LSTM is not."""
    wanted, kept = {id(t) for t in outputs}, []
    for op in reversed(ops):
        if id(op.output) in wanted:
            kept.append(op)
            wanted.update(id(t) for t in op.inputs)
    return kept[::-1]


def _copy(value):
    """A pending kernel that this reader can change, and no other sees."""
    if isinstance(value, Pending):
        return dataclasses.replace(value, options=dict(value.options))
    return value


def _is_real(value):
    return isinstance(value, Pending) or value.dtype is None


def lower_model(model, storage="exact", dynamic_range=False, input_shapes=None):
    """The float-in, float-out program of a quantized model or `SAQModel`."""
    model = inner_model(model)
    if storage not in STORAGE:
        raise ValueError(
            f"`storage` must be one of {list(STORAGE)}. "
            f"Received: storage={storage!r}"
        )
    if not quantized_layers(model):
        raise ValueError(
            f"The model '{model.name}' is not quantized. Quantize it first:"
            "\n\n    q = keras_saq.quantize_model(model, 'w4a8', "
            "calibration=x[:256])"
        )
    require_calibrated(model, "be exported")
    return lower(model, storage, dynamic_range, input_shapes)


def _first_argument(site):
    """The values that the quantizer of a layer's input is for.

    Not what else a layer is called with, such as an initial state.
    """
    if not isinstance(site.operation, keras.layers.Layer) or isinstance(
        site.operation, OperationLayer
    ):
        return site.inputs
    arguments = [*site.call.args, *site.call.kwargs.values()]
    first = tree.flatten(arguments[0]) if arguments else []
    number = sum(isinstance(t, keras.KerasTensor) for t in first)
    return site.inputs[:number]
