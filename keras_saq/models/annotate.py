"""Choosing layers one by one, as users of TFMOT do: annotate, then apply.

| TFMOT                                    | here                            |
|------------------------------------------|---------------------------------|
| `quantize_annotate_layer(layer, config)` | the same, also on nested models |
| `quantize_annotate_model(model)`         | the same, also on nested models |
| `quantize_apply(model, scheme)`          | `quantize_apply(model, policy)` |
| `quantize_scope(objects)`                | for classes of one's own only   |

Of TFMOT's classes the configs are understood (see `keras_saq.layers.resolve`);
its schemes have become policies.
"""

import keras

from keras_saq import policy as policies
from keras_saq.layers import Quantized
from keras_saq.models.annotated import Annotations
from keras_saq.models.annotated import is_remade
from keras_saq.models.annotated import rebuild
from keras_saq.models.annotation import QuantizeAnnotate
from keras_saq.models.copy import from_own_config
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

    return rebuild(model, annotate)


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
    annotations = Annotations(model)
    annotations.check(model)

    def strip(operation):
        if isinstance(operation, QuantizeAnnotate):
            operation = operation.layer
        return from_own_config(operation)

    stripped = rebuild(model, strip)
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
    if not is_remade(model):
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
