"""What the layers of a graph read, and which of them belong together."""

from keras_saq.layers import roles
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.storage import FLOAT_BITS
from keras_saq.policy import layer_paths
from keras_saq.search.cost import INPUT_BITS
from keras_saq.search.ties import Ties


def read_quantizer(plan, site, own=True):
    """The quantizer of the tensor that a site reads, in a plan.

    Args:
        plan: a `Plan`.
        site: a `Site` of its graph.
        own: whether the layer's own input quantizer counts.

    Returns:
        A quantizer; `FLOAT_BITS` where the tensor is float, and `INPUT_BITS`
        where it is a model input.
    """
    config = plan.config_of(site.operation)
    if own and config is not None and config.inputs is not None:
        return config.inputs
    value = site.inputs[0]
    while value.producer is not None:
        maker = value.producer.operation
        config = plan.config_of(maker)
        if config is not None and config.outputs is not None:
            return config.outputs
        if not roles.keeps_grid(maker):
            return FLOAT_BITS
        if config is not None and config.inputs is not None:
            return config.inputs
        value = value.producer.inputs[0]
    return INPUT_BITS


def fixed_input(reads, weight_bits):
    if weight_bits == FLOAT_BITS or reads is None:
        return FLOAT_BITS
    return getattr(reads, "num_bits", reads)


def weighted_layers(model, graph):
    """`(path, layer)` of layers with weights: the graph's, then the others."""
    inside = set()
    for site in graph.sites:
        if is_weighted(site.operation):
            yield site.path, site.operation
            inside |= {id(part) for part in site.operation._flatten_layers()}
    for path, layer in layer_paths(model):
        if id(layer) not in inside and is_weighted(layer) and layer.built:
            inside |= {id(part) for part in layer._flatten_layers()}
            yield path, layer


def added_together(graph):
    """Sets of ids of layers with weights whose outputs meet in sums."""
    ties = Ties()
    for site in graph.sites:
        if is_weighted(site.operation):
            ties.add(id(site.operation), ())
    for site in graph.sites:
        if roles.is_add(site.operation):
            makers = [m for value in site.inputs for m in _makers(value)]
            ties.join([id(maker) for maker in makers])
    return [members for members in ties.sets() if len(members) > 1]


def _makers(value):
    """The nearest layers with weights behind a value."""
    site = value.producer
    if site is None:
        return
    if is_weighted(site.operation):
        yield site.operation
        return
    for each in site.inputs:
        yield from _makers(each)
