"""Layers of somebody's own without weights to quantize, by what they call.

Such as a scaling by a learned vector: the layer's `call` is followed with
symbolic tensors, and the operations in it are lowered one by one.
"""

import contextlib

from keras import layers

from keras_saq.layers import roles
from keras_saq.layers.hidden import as_float
from keras_saq.layers.hidden import float_class
from keras_saq.models.descent import Call
from keras_saq.models.descent import descend
from keras_saq.models.graph import Site
from keras_saq.models.graph import Value


def matches(operation):
    """Whether a layer is somebody's own."""
    if not isinstance(operation, layers.Layer):
        return False
    own = float_class(type(roles.unwrap(operation)))
    return not own.__module__.startswith("keras.src.")


def obstacle(why_not):
    """A function that says why one of these layers cannot be lowered."""

    def find(site):
        with _sites(site) as (sites, _, failure):
            if failure is not None:
                return f"its `call` cannot be followed: {failure}"
            for inner in sites:
                reason = why_not(inner)
                if reason is not None:
                    name = type(inner.operation).__name__
                    return f"its `call` uses {name}: {reason}"
        return None

    return find


def lower(lower_site):
    """A function that lowers such a layer.

    Args:
        lower_site: function of a builder, a site and its inputs that lowers
            what the layer calls.
    """

    def run(builder, site, inputs):
        with _sites(site) as (sites, outputs, _):
            values = dict(zip(site.inputs, inputs))
            for inner in sites:
                arguments = [values[value] for value in inner.inputs]
                made = lower_site(builder, inner, arguments)
                made = made if isinstance(made, list) else [made]
                values.update(zip(inner.outputs, made))
            return [values[value] for value in outputs]

    return run


@contextlib.contextmanager
def _sites(site):
    """What a layer calls: `(sites, values that it returns, failure)`."""
    with as_float([site.operation]), descend(site.operation, site.call) as t:
        if t.failure is not None:
            yield [], [], t.failure
            return
        values = {id(a): value for a, value in zip(t.inputs, site.inputs)}
        sites = []
        for node in t.nodes:
            inner = Site(
                node.operation,
                f"{site.path}/{node.operation.name}",
                [values[id(tensor)] for tensor in node.input_tensors],
                [],
                site.operation,
                None,
                Call.of_node(node),
            )
            for tensor in node.output_tensors:
                value = Value(
                    (None, *tensor.shape[1:]), inner, inner.path, tensor.dtype
                )
                inner.outputs.append(value)
                values[id(tensor)] = value
            sites.append(inner)
        yield sites, [values[id(tensor)] for tensor in t.outputs], None
