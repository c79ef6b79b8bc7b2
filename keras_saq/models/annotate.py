"""Choosing layers one by one, as users of TFMOT do: annotate, then apply.

| TFMOT                                    | here                            |
|------------------------------------------|---------------------------------|
| `quantize_annotate_layer(layer, config)` | the same, also on nested models |
| `quantize_annotate_model(model)`         | the same, also on nested models |
| `quantize_apply(model, scheme)`          | `quantize_apply(model, policy)` |
| `quantize_scope(objects)`                | for classes of one's own only   |

Of TFMOT's classes the configs are understood (see `keras_saq.policy.resolve`);
its schemes have become policies.
"""

import dataclasses
import re

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq import policy as policies
from keras_saq.layers import Quantized
from keras_saq.models.annotation import QuantizeAnnotate
from keras_saq.models.copy import from_own_config
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.quantize import quantize_model


def quantize_annotate_layer(layer, quantize_config=None):
    """Marks a layer as one that `quantize_apply` quantizes.

    Args:
        layer: a Keras layer, or a model that is used as one; then all that is
            in it is meant.
        quantize_config: what is quantized in the layer, and how: a
            `keras_saq.QuantizeConfig`, or a config that was written for
            TFMOT. `None`: the policy of `quantize_apply` says it.

    Returns:
        A layer that computes what `layer` computes.

    Raises:
        ValueError: if `layer` is no layer or is annotated already, or if the
            config is none.

    Example:

    >>> import keras, keras_saq
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu"),
    ...     keras_saq.quantize_annotate_layer(keras.layers.Dense(4)),
    ... ])
    >>> model.layers[-1].layer.units
    4
    """
    if isinstance(layer, QuantizeAnnotate):
        raise ValueError(
            f"The layer '{layer.layer.name}' is annotated already. Annotate "
            "it once, with the config that it is to have."
        )
    return QuantizeAnnotate(layer, quantize_config=quantize_config)


def quantize_annotate_model(model):
    """Marks every layer of a model as one that `quantize_apply` quantizes.

    For a model in which some layers have a config of their own; without such
    layers `keras_saq.quantize_model(model, policy)` does the same in one step.

    Args:
        model: a built Functional or Sequential model. Layers in it that are
            annotated keep their config.

    Returns:
        A float model of the same kind, with weights of its own. `model` is
        left as it is.

    Raises:
        ValueError: if the model is neither Functional nor Sequential, is not
            built or is quantized.

    Example:

    >>> import keras, keras_saq
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu"),
    ...     keras.layers.Dense(4),
    ... ])
    >>> annotated = keras_saq.quantize_annotate_model(model)
    >>> q = keras_saq.quantize_apply(annotated, "w4a8")
    >>> [layer.name for layer in q.layers] == [l.name for l in model.layers]
    True
    """
    _check_model(model, "quantize_annotate_model")

    def annotate(operation):
        copy = from_own_config(operation)
        if isinstance(operation, (QuantizeAnnotate, keras.layers.InputLayer)):
            return copy
        is_layer = isinstance(operation, keras.layers.Layer)
        return QuantizeAnnotate(copy) if is_layer else copy

    return _rebuild(model, annotate)


def quantize_apply(model, policy="w8a8", calibration=None):
    """Quantizes the annotated layers of a model, and no others.

    Args:
        model: a built Functional or Sequential model with layers that
            `quantize_annotate_layer` or `quantize_annotate_model` marked, in
            it or in a model that is nested in it.
        policy: a preset such as `"w4a8"`, the path of a policy's `.json`, or
            a `keras_saq.QuantizePolicy`: what annotated layers without a
            config of their own get.
        calibration: data that scales are taken from, see `quantize_model`.

    Returns:
        The quantized model, without the annotations. It is not compiled.
        `model` is left as it is.

    Raises:
        ValueError: if the model is neither Functional nor Sequential, is not
            built, is quantized, or has no annotated layer; if a config names
            what a layer does not have.

    Example:

    >>> import keras, keras_saq
    >>> inputs = keras.Input((8,))
    >>> x = keras.layers.Dense(16, activation="relu")(inputs)
    >>> head = keras_saq.quantize_annotate_layer(keras.layers.Dense(4))
    >>> model = keras.Model(inputs, head(x))
    >>> q = keras_saq.quantize_apply(model, "w4a8")
    >>> [type(layer).__name__ for layer in q.layers]
    ['InputLayer', 'Dense', 'QuantizedDense']
    """
    policy = policies.get(policy)
    _check_model(model, "quantize_apply")
    annotations = _Annotations(model)
    annotations.check(model)

    def strip(operation):
        if isinstance(operation, QuantizeAnnotate):
            operation = operation.layer
        return from_own_config(operation)

    stripped = _rebuild(model, strip)
    policy = annotations.before(policy, stripped)
    return quantize_model(stripped, policy, calibration)


def quantize_scope(*custom_objects):
    """A scope in which classes of one's own are found by name.

    What this library defines is always found; the scope is for configs and
    layers that are not registered with Keras.

    Args:
        *custom_objects: dicts from name to class.

    Example:

    >>> import keras_saq
    >>> class MyConfig(keras_saq.QuantizeConfig):
    ...     pass
    >>> with keras_saq.quantize_scope({"MyConfig": MyConfig}):
    ...     pass  # keras.saving.load_model("annotated.keras")
    """
    merged = {name: value for d in custom_objects for name, value in d.items()}
    return keras.saving.custom_object_scope(merged)


def _check_model(model, function):
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`{function}` takes a `keras.Model`. For one layer there is "
            "`keras_saq.quantize_annotate_layer`. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    if not _is_transparent(model):
        raise ValueError(
            f"`{function}` takes Functional and Sequential models. Received: "
            f"'{model.name}' of type {type(model).__name__}. Choose its layers "
            "by their paths instead:\n\n"
            "    keep = keras_saq.Rule(path='head', keep_float=True)\n"
            "    rest = keras_saq.Rule(weight_bits=8, activation_bits=8)\n"
            "    policy = keras_saq.QuantizePolicy(rules=(keep, rest))\n"
            "    q = keras_saq.quantize_model(model, policy)"
        )
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built, so it has no weights. "
            "Give it an input shape,\n\n"
            "    model = keras.Sequential([keras.Input((28, 28, 1)), ...])\n\n"
            "or call `model.build(input_shape)` first."
        )
    for path, layer in policies.layer_paths(model):
        if isinstance(layer, Quantized):
            raise ValueError(
                f"The model '{model.name}' is quantized already: '{path}' is "
                f"a {type(layer).__name__}. Call `{function}` on the float "
                "model."
            )


class _Annotations:
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
            elif _is_transparent(operation):
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
                config=policies.resolve(config, layers[path]),
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


def _is_transparent(operation):
    """Whether a model is known by its graph, whatever layers are in it."""
    return type(operation) is keras.Sequential or is_plain_graph_model(
        operation
    )


def _rebuild(model, function):
    """A model of the same structure, weights included, at any depth.

    Args:
        model: a Functional or Sequential model.
        function: makes a new operation of each of the model's.
    """
    models, made = {}, {}

    def visit(operation):
        is_model = _is_transparent(operation)
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
            _copy_variables(operation, new)
    return result


def _copy_input(tensor):
    return from_own_config(tensor._keras_history.operation).output


def _copy_variables(layer, copy):
    for source, target in zip(layer.variables, copy.variables, strict=True):
        # By way of NumPy: on JAX, the models would share buffers otherwise.
        target.assign(np.copy(ops.convert_to_numpy(source)))
