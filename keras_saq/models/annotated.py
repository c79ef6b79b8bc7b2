"""Annotated models: what is annotated in them, and how they are made again."""

import dataclasses
import re

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq import policy as policies
from keras_saq.layers import resolve
from keras_saq.models.annotation import QuantizeAnnotate
from keras_saq.models.copy import from_own_config
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.state import copy_other_state
from keras_saq.models.state import copy_trainable


class Annotations:
    """What is annotated in a model, by the paths after the annotations went.

    Attributes:
        configs: dict from path to the config of an annotated layer, or `None`.
        others: paths of layers that are not annotated.
        operations: paths of operations that are no layers.
    """

    def __init__(self, model):
        self.configs, self.others, self.operations = {}, [], []
        self._seen = set()
        self._walk(model, "")

    def _walk(self, model, prefix):
        names = set()
        for operation in _operations(model):
            layer = operation
            if isinstance(operation, QuantizeAnnotate):
                self._seen.add(id(operation))
                layer = operation.layer
            path = f"{prefix}{layer.name}"
            if layer.name in names:
                raise ValueError(
                    f"Two layers of '{model.name}' would have the path "
                    f"'{path}' without the annotations. Give the layer inside "
                    "of the annotation another `name`."
                )
            names.add(layer.name)
            if isinstance(operation, QuantizeAnnotate):
                self.configs[path] = operation.quantize_config
            elif is_remade(operation):
                self._walk(operation, f"{path}/")
            elif not isinstance(operation, keras.layers.Layer):
                self.operations.append(path)
            elif not isinstance(operation, keras.layers.InputLayer):
                self.others.append(path)

    def check(self, model):
        """Raises where nothing is annotated, or where it cannot be undone."""
        hidden = [
            path
            for path, layer in policies.layer_paths(model)
            if isinstance(layer, QuantizeAnnotate)
            and id(layer) not in self._seen
        ]
        if hidden:
            raise ValueError(
                "Annotations inside of composite layers cannot be taken off "
                f"again: {hidden}. Annotate the composite layer as a whole, "
                "and leave layers in it out by a rule of the policy with "
                "`keep_float=True`."
            )
        if not self.configs:
            raise ValueError(
                f"No layer of the model '{model.name}' is annotated, so there "
                "is nothing to quantize. Annotate layers with "
                "`keras_saq.quantize_annotate_layer(layer)`, or quantize all "
                "of them with `keras_saq.quantize_model(model, policy)`."
            )

    def before(self, policy, model):
        """A policy for the model without annotations, in which they count."""
        layers = dict(policies.layer_paths(model))
        rules = [
            policies.Rule(
                path=re.escape(path),
                config=resolve(config, layers[path]),
            )
            for path, config in self.configs.items()
            if config is not None
        ]
        if self.others:
            # In a model that is annotated in part, the rest is float.
            paths = map(re.escape, [*self.others, *self.operations])
            path = f"(?:{'|'.join(paths)})(?:/.*)?"
            rules.append(policies.Rule(path=path, keep_float=True))
        result = dataclasses.replace(policy, rules=(*rules, *policy.rules))
        # A rule that only means layers without annotation is no mistake.
        mistaken = {id(rule) for rule in policy.unused_rules(model)}
        spare = {id(rule) for rule in result.unused_rules(model)} - mistaken
        kept = [rule for rule in result.rules if id(rule) not in spare]
        return dataclasses.replace(result, rules=kept)


def _operations(model):
    if isinstance(model, keras.Sequential):
        return model.layers
    return model.operations


def is_remade(operation):
    """Whether a model is made again from its layers, not from its config."""
    return type(operation) is keras.Sequential or is_plain_graph_model(
        operation
    )


def rebuild(model, function):
    """A model of the same structure, weights included, at any depth.

    Args:
        model: a Functional or Sequential model.
        function: makes a new operation of each of the model's.
    """
    models, made = {}, {}

    def visit(operation):
        is_model = is_remade(operation)
        done, make = (models, clone) if is_model else (made, function)
        if id(operation) not in done:
            done[id(operation)] = operation, make(operation)
        return done[id(operation)][1]

    def clone(graph):
        inputs = None
        if not isinstance(graph, keras.Sequential):
            # Keras would name the new input layers after their tensors.
            inputs = tree.map_structure(_copy_input, graph.input)
        compiled, graph.compiled = graph.compiled, False  # the copy is not
        try:
            return keras.models.clone_model(
                graph, input_tensors=inputs, clone_function=visit
            )
        finally:
            graph.compiled = compiled

    result = visit(model)
    for operation, new in made.values():
        if isinstance(operation, keras.layers.Layer):
            _copy_state(operation, new)
    for graph, new in models.values():
        new._trainable = graph.trainable
    return result


def _copy_input(tensor):
    return from_own_config(tensor._keras_history.operation).output


def _copy_state(layer, copy):
    if isinstance(layer, QuantizeAnnotate) != isinstance(
        copy, QuantizeAnnotate
    ):
        layer, copy = (
            one.layer if isinstance(one, QuantizeAnnotate) else one
            for one in (layer, copy)
        )
    copy_other_state(layer, copy)
    copy_trainable(layer, copy)
    for source, target in zip(layer.variables, copy.variables, strict=True):
        # By way of NumPy: on JAX, the models would share buffers otherwise.
        target.assign(np.copy(ops.convert_to_numpy(source)))
