"""Which function reads a tensor, for the choice of the tensor's scale."""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_saq.layers import Quantized
from keras_saq.layers import roles
from keras_saq.layers.observation import observed_by
from keras_saq.quantizers import pass_through_scope

# Of those that bend: what ReLU clips, its own quantizer does not see.
_BENT = {
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
}


def functions_behind(graph):
    """The function behind each output quantizer that only a function reads.

    Args:
        graph: the `Graph` of a quantized model.

    Returns:
        Dict from `id` of a quantizer to a function of a tensor.
    """
    found = {}
    for site in graph.sites:
        layer = site.operation
        if not isinstance(layer, Quantized) or len(site.outputs) != 1:
            continue
        quantizer = layer.output_quantizer
        if quantizer is None or len(graph.sites_of(layer)) != 1:
            continue
        chains = _chains(graph, site.outputs[0])
        if chains:
            found[id(quantizer)] = _joined(chains)
    return found


def _chains(graph, value):
    """The sites up to each function that reads a value; `None` if not all."""
    chains = []
    if graph.is_output(value):
        return None
    for reader in graph.consumers(value):
        if len(reader.inputs) != 1 or reader.closed is not None:
            return None
        if len(reader.outputs) != 1:
            return None
        if roles.function_name(reader.operation) in _BENT:
            if roles.is_weighted(reader.operation):
                return None
            chains.append([reader])
        elif roles.keeps_grid(reader.operation):
            rest = _chains(graph, reader.outputs[0])
            if rest is None:
                return None
            chains += [[reader, *chain] for chain in rest]
        else:
            return None
    return chains


def _joined(chains):
    def function(x):
        made = []
        with pass_through_scope(), observed_by(None):
            for chain in chains:
                y = x
                for site in chain:
                    y = _call(site, y)
                made.append(ops.convert_to_numpy(y).reshape(-1))
        return np.concatenate(made)

    return function


def _call(site, x):
    """What an operation makes of another tensor in the place of its own."""
    args, kwargs = tree.map_structure(
        lambda a: x if isinstance(a, keras.KerasTensor) else a,
        (site.call.args, site.call.kwargs),
    )
    return site.operation(*args, **kwargs)
