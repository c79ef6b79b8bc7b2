"""`strip`: back to a float model, with its weights on their grids."""

import keras
import numpy as np
from keras import ops

from keras_saq.layers.batch_normalization import on_grid_beta
from keras_saq.layers.hidden import as_float
from keras_saq.layers.hidden import places
from keras_saq.layers.operation import OperationLayer
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.copy import GraphCopy
from keras_saq.models.copy import copy_variables
from keras_saq.models.copy import from_own_config
from keras_saq.models.copy import rebuild
from keras_saq.models.graph import is_plain_graph_model
from keras_saq.models.wrapper import inner_model


def strip(model):
    """A float model whose weights have the values of the quantized ones.

    What is left are plain Keras layers: no quantizers, no look-alike classes.
    Weights are on their grids, and so are biases and batch norm offsets where
    the quantized model rounds them; activations are no longer rounded.

    Args:
        model: a model from `keras_saq.quantize_model`, or a `SAQModel`
            around one. It is not changed.

    Returns:
        A float `keras.Model` of the class the model had before, not compiled.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> q = keras_saq.quantize_model(model, "w8")
    >>> kernel = keras_saq.strip(q).layers[0].kernel
    >>> codes = kernel / q.layers[0].kernel_quantizer.scale
    >>> bool(np.allclose(codes, np.rint(codes), atol=1e-4))
    True
    """
    model = inner_model(model)
    if not quantized_layers(model):
        raise ValueError(
            f"The model '{model.name}' has no quantized layer. `strip` takes "
            "what `keras_saq.quantize_model` returns. "
            f"Received: {type(model).__name__}"
        )
    values = _grid_values(model)
    if is_plain_graph_model(model):
        with as_float([model]):
            return _Stripped(values).run(model)
    with as_float([model, *places(model).values()]):
        copy = rebuild(model)
    copy_variables(model, copy, values)
    return copy


class _Stripped(GraphCopy):
    def __init__(self, values):
        super().__init__(values)

    def make(self, operation):
        if isinstance(operation, OperationLayer):
            return operation.operation
        if isinstance(operation, keras.layers.Layer):
            return _float_layer(operation)
        return super().make(operation)


def _float_layer(layer):
    """A new float layer or model of the same settings, without weights."""
    with as_float([layer, *places(layer).values()]):
        return from_own_config(layer)


def _grid_values(model):
    """Dict from `id` of a variable to its value on the grid."""
    values = {}
    for layer in quantized_layers(model):
        for variable, value in layer.overlaid_values():
            values[id(variable)] = np.copy(ops.convert_to_numpy(value))
        beta = on_grid_beta(layer)
        if beta is not None:
            values[id(layer.beta)] = np.copy(ops.convert_to_numpy(beta))
    return values
