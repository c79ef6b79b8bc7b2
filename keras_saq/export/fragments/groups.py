"""Which sites become one fragment: neighbours that compute in float.

A site joins the group that makes one of its inputs where no quantizer lies
between, and where all else that it reads is there before the group begins;
so that no group waits for what it makes itself.
"""

import dataclasses

from keras_saq.layers import Quantized


@dataclasses.dataclass(eq=False)
class Group:
    """Sites that one fragment computes.

    Attributes:
        sites: in order.
        reasons: why each of them is no integer kernel.
        inputs: the `Value`s that come from outside, each once.
        outputs: the `Value`s that are read outside.
    """

    sites: list
    reasons: list
    inputs: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)


def find_groups(graph, why_float):
    """The groups of a graph.

    Args:
        graph: a `Graph`.
        why_float: function of a site that says why it is no integer kernel,
            or returns `None`.

    Returns:
        Dict from each site to its `Group`; other sites are not in it.
    """
    order = {id(site): i for i, site in enumerate(graph.sites)}
    group_of = {}
    for site in graph.sites:
        reason = why_float(site)
        if reason is None:
            continue
        group = _joined(site, group_of, order)
        if group is None:
            group = Group([], [])
        group.sites.append(site)
        group.reasons.append(reason)
        group_of[site] = group
    for group in {id(g): g for g in group_of.values()}.values():
        _find_ends(graph, group)
    return group_of


def _joined(site, group_of, order):
    """The group that a site can join, or `None`."""
    if _quantizer(site, "input_quantizer") is not None:
        return None
    for value in site.inputs:
        maker = value.producer
        group = group_of.get(maker)
        if group is None or _quantizer(maker, "output_quantizer") is not None:
            continue
        first = order[id(group.sites[0])]
        others = [v.producer for v in site.inputs]
        if all(
            other is None
            or order[id(other)] < first
            or group_of.get(other) is group
            and _quantizer(other, "output_quantizer") is None
            for other in others
        ):
            return group
    return None


def _quantizer(site, name):
    layer = site.operation
    return getattr(layer, name, None) if isinstance(layer, Quantized) else None


def _find_ends(graph, group):
    inside = set(group.sites)
    for site in group.sites:
        for value in site.inputs:
            if value.producer not in inside and value not in group.inputs:
                group.inputs.append(value)
        for value in site.outputs:
            readers = graph.consumers(value)
            if graph.is_output(value) or not inside.issuperset(readers):
                group.outputs.append(value)
