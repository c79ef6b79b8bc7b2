"""A quantized copy of a float model, weights included."""

import itertools

import keras
import numpy as np
from keras import ops
from keras import tree
from keras.src.utils.python_utils import is_default

from keras_saq.layers import Quantized
from keras_saq.layers import quantize_layer
from keras_saq.layers.hidden import parts
from keras_saq.layers.operation import OperationLayer
from keras_saq.layers.quantized import as_composite
from keras_saq.models.graph import is_graph_model
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.inside import Inside
from keras_saq.models.model import as_quantized_model
from keras_saq.models.state import copy_other_state
from keras_saq.models.state import copy_trainable
from keras_saq.models.state import forget_functions
from keras_saq.models.state import freeze_quantizers
from keras_saq.models.state import merged_adapters
from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import Quantizer


def quantized_copy(model, plan):
    """A copy of `model` that is quantized as a `Plan` says."""
    with merged_adapters(model) as (adapters, values):
        if is_plain_graph_model(model):
            copy = _QuantizedCopy(plan, values, adapters).run(model)
        else:
            copy = rebuild(model)
            copy_variables(model, copy, values, adapters)
            copy_trainable(model, copy)
            copy = quantize_inside(copy, Inside(plan, model))
    return _finish(copy)


def quantized_in_place(model, plan):
    """Makes of `model` itself what a `Plan` says."""
    forget_functions(model)
    return _finish(quantize_inside(model, Inside(plan, model)))


def quantize_inside(model, inside):
    return as_composite(model, QuantizeConfig(), inside.hidden, inside.outputs)


def _finish(model):
    for layer in model._flatten_layers():
        if isinstance(layer, Quantized):
            layer.initialize_weight_scales()
    freeze_quantizers(model)
    return as_quantized_model(model)


class GraphCopy:
    """Copies Functional and Sequential models operation by operation.

    Args:
        values: dict from `id` of a variable to what its copy shall hold,
            where that is something else.
        left_out: ids of the variables that the copy does not have.
    """

    def __init__(self, values=None, left_out=()):
        self._values = values
        self._left_out = left_out
        self._copies = {}
        # Whether the models that are being copied are trainable.
        self._trainable = []

    def make(self, operation):
        """A new operation for one of the model."""
        return from_own_config(operation)

    def run(self, model):
        clone = self._clone(model)
        for layer, copy in self._copies.values():
            if not is_plain_graph_model(layer):
                copy_variables(layer, copy, self._values, self._left_out)
                copy_trainable(layer, copy)
        return clone

    def _clone(self, model):
        self._trainable.append(model.trainable)
        try:
            clone = self._clone_graph(model)
        finally:
            self._trainable.pop()
        # Past Keras, which would also set it for the layers inside.
        clone._trainable = model.trainable
        return clone

    def _clone_graph(self, model):
        inputs, call_function = None, None
        if not isinstance(model, keras.Sequential):
            # Keras would name the new input layers after their tensors.
            inputs = tree.map_structure(_copy_input, model.input)
            call_function = self._caller(model)
        compiled, model.compiled = model.compiled, False  # the copy is not
        try:
            return keras.models.clone_model(
                model,
                input_tensors=inputs,
                clone_function=self._copy,
                call_function=call_function,
            )
        finally:
            model.compiled = compiled

    def _caller(self, model):
        """A function that calls the copies, node after node."""
        nodes = iter(nodes_in_order(model))

        def call(copy, *args, **kwargs):
            return self.call(next(nodes), copy, args, kwargs)

        return call

    def call(self, node, copy, args, kwargs):
        """What a copy makes where a node of the model is."""
        return copy(*args, **kwargs)

    def _copy(self, operation):
        if id(operation) not in self._copies:
            made = (
                self._clone(operation)
                if is_plain_graph_model(operation)
                else self.make(operation)
            )
            self._copies[id(operation)] = operation, made
        return self._copies[id(operation)][1]


def nodes_in_order(model):
    """The nodes of a Functional model, as Keras calls them."""
    by_depth = model._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if node.operation and not node.is_input
    ]


class _QuantizedCopy(GraphCopy):
    def __init__(self, plan, values=None, left_out=()):
        super().__init__(values, left_out)
        self._plan = plan
        self._names = set()

    def call(self, node, copy, args, kwargs):
        """With quantizers of this one call in front of it and behind it."""
        before = {
            number: quantizer
            for (owner, number), quantizer in self._plan.before.items()
            if owner == id(node)
        }
        if before:
            numbers = itertools.count()

            def fill(x):
                if not isinstance(x, keras.KerasTensor):
                    return x
                number = next(numbers)
                if number not in before:
                    return x
                name = f"{copy.name}_input_{number}"
                return self._stop(name, before[number])(x)

            args, kwargs = tree.map_structure(fill, (args, kwargs))
        outputs = copy(*args, **kwargs)
        quantizer = self._plan.behind.get(id(node))
        if quantizer is None:
            return outputs
        return self._stop(f"{copy.name}_output", quantizer)(outputs)

    def _stop(self, name, quantizer):
        """A layer that does nothing but quantize what passes through."""
        unique, number = name, 1
        while unique in self._names:
            unique, number = f"{name}_{number}", number + 1
        self._names.add(unique)
        layer = keras.layers.Identity(name=unique)
        return quantize_layer(layer, QuantizeConfig(outputs=quantizer))

    def make(self, operation):
        config = self._plan.config_of(operation)
        if not isinstance(operation, keras.layers.Layer):
            if config is None:
                return super().make(operation)
            layer = OperationLayer(
                operation,
                name=operation.name,
                trainable=all(self._trainable),
            )
            return quantize_layer(layer, config)
        inside = Inside(self._plan, operation)
        if inside.hidden and not (config is not None and config.weights):
            return as_composite(
                from_own_config(operation),
                config or QuantizeConfig(),
                inside.hidden,
                inside.outputs,
            )
        if config is None:
            return super().make(operation)
        return quantize_layer(operation, config)


def from_own_config(operation):
    """A new layer or model of the same class and settings."""
    if type(operation) is keras.layers.Lambda:
        # Its config has the code of a function without what the code reads.
        return keras.layers.Lambda(
            operation.function,
            output_shape=operation._output_shape,
            mask=operation.mask,
            arguments=operation.arguments,
            name=operation.name,
            dtype=operation.dtype_policy,
            trainable=operation.trainable,
        )
    try:
        return type(operation).from_config(operation.get_config())
    except Exception as error:
        # Keras also notes the arguments of a constructor, which serves
        # classes whose constructor takes no `name` or `dtype`.
        noted = getattr(operation, "_auto_config", None)
        if noted is not None and is_default(operation.get_config):
            return type(operation)(**noted.config)
        name = type(operation).__name__
        raise ValueError(
            f"The layer '{operation.name}' cannot be copied: {name}."
            f"from_config(layer.get_config()) failed with "
            f"{type(error).__name__}: {error}. Give {name} a `get_config` "
            "that returns the arguments of its constructor, or quantize the "
            "model itself instead of a copy:\n\n"
            "    q = keras_saq.quantize_model(model, policy, inplace=True)"
        ) from error


def rebuild(model):
    """A float copy of a model that has a class of its own, built."""
    copy = from_own_config(model)
    if not copy.built or not is_graph_model(model):
        copy.build_from_config(model.get_build_config())
    return copy


def _copy_input(tensor):
    layer = tensor._keras_history.operation
    return layer.__class__.from_config(layer.get_config()).output


def copy_variables(layer, copy, values=None, left_out=()):
    """Gives a copy the values of a layer's variables, and its other state.

    Args:
        layer: an operation; one that is no layer has none.
        copy: the copy.
        values: dict from `id` of a variable to a value to be taken instead.
        left_out: ids of the layer's variables that the copy does not have.
    """
    for one in (layer, copy):
        if not isinstance(one, keras.layers.Layer):
            return
    sources = [v for v in own_variables(layer) if id(v) not in left_out]
    targets = own_variables(copy)
    difference = _difference(sources, targets)
    if difference:
        raise ValueError(
            f"The copy of '{layer.name}' ({type(layer).__name__}) has other "
            f"variables than the layer: {difference}. Its `get_config` does "
            "not say all that makes it. Complete it, or quantize the model "
            "itself instead of a copy:\n\n"
            "    q = keras_saq.quantize_model(model, policy, inplace=True)"
        )
    # First, since what comes from a file of variables may be replaced.
    copy_other_state(layer, copy)
    for source, target in zip(sources, targets):
        # By way of NumPy: the two models must not share a buffer, which
        # JAX would hand over to the first train step of one of them.
        value = (values or {}).get(id(source))
        if value is None:
            value = np.copy(ops.convert_to_numpy(source))
        target.assign(value)


def _difference(sources, targets):
    """What is different about the copies of variables, `None` if nothing."""
    if len(sources) != len(targets):
        return f"expected {len(sources)}, received {len(targets)}"
    for source, target in zip(sources, targets):
        if source.shape != target.shape:
            return (
                f"for '{source.path}', expected the shape "
                f"{tuple(source.shape)}, received {tuple(target.shape)}"
            )
    return None


def own_variables(layer):
    """The variables of a layer that are no quantizer's."""
    added = {id(v) for q in _quantizers_in(layer) for v in q.variables}
    return [v for v in layer.variables if id(v) not in added]


def _quantizers_in(layer):
    for part in layer._layers:
        if isinstance(part, Quantizer):
            yield part
    for part in parts(layer):
        yield from _quantizers_in(part)
