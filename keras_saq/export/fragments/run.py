"""Computes sites in float, one after the other, on a backend's tensors."""

import contextlib
import inspect

import keras
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.layers.hidden import as_float
from keras_saq.layers.hidden import float_class
from keras_saq.layers.overlay import Overlay
from keras_saq.models.masks import attach


def run(sites, inputs):
    """What sites make of tensors, without the quantizers of their layers.

    Weights have their quantized values.

    Args:
        sites: list of `Site`, producers first.
        inputs: dict from `Value` to tensor, for what none of them makes.

    Returns:
        Dict from every `Value` to its tensor.
    """
    values = dict(inputs)
    for site in sites:
        tensors = iter([values[value] for value in site.inputs])

        def fill(argument):
            if isinstance(argument, keras.KerasTensor):
                return next(tensors)
            return argument

        args, kwargs = tree.map_structure(
            fill, (site.call.args, dict(site.call.kwargs))
        )
        attach(_attached(site, values))
        made = [
            tensor
            for tensor in tree.flatten(_call(site.operation, args, kwargs))
            if tensor is not None
        ]
        values.update(zip(site.outputs, made))
    return values


def _attached(site, values):
    """`(tensor, mask)` of a call that finds masks at its tensors."""
    found = {
        id(t): values[value] for t, value in zip(site.call.tensors, site.inputs)
    }
    return [(found[id(t)], found[id(mask)]) for t, mask in site.call.masks]


def _call(operation, args, kwargs):
    if not isinstance(operation, keras.layers.Layer):
        return operation.call(*args, **kwargs)
    layer = operation
    values = layer.overlaid_values() if isinstance(layer, Quantized) else []
    call = float_class(type(layer)).call
    if "training" in inspect.signature(call).parameters:
        kwargs["training"] = False
    dtype = layer.compute_dtype
    args, kwargs = tree.map_structure(
        lambda x: ops.cast(x, dtype) if _is_real(x) else x, (args, kwargs)
    )
    (first, *_) = tree.flatten(args)
    with Overlay(values), as_float([layer]), _unrolled(layer, first):
        return call(layer, *args, **kwargs)


def _is_real(x):
    return ops.is_tensor(x) and "float" in keras.backend.standardize_dtype(
        x.dtype
    )


@contextlib.contextmanager
def _unrolled(layer, tensor):
    """Inside, a recurrent layer is no loop if the steps can be counted."""
    is_loop = isinstance(layer, keras.layers.RNN) and not layer.unroll
    if not is_loop or tensor.shape[1] is None:
        yield
        return
    layer.unroll = True
    try:
        yield
    finally:
        layer.unroll = False
