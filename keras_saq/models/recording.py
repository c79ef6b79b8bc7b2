"""What the operations of a model make, call by call, as it is run."""

import contextlib

from keras import ops

from keras_saq.models.graph import Graph


@contextlib.contextmanager
def told_of_calls(model, tell):
    """Inside, `tell` is told of each call in a model that a `Graph` lists.

    Args:
        model: any Keras model, run eagerly.
        tell: function of the `Site`, which call of its operation it is, from
            0, the arguments of `call` as a tuple and a dict, and what it
            returned.
    """
    graph = Graph(model)
    counts = {}
    # What `tell` calls itself is not told.
    is_telling = []
    operations = {id(s.operation): s.operation for s in graph.sites}.values()

    def wrapped(operation):
        call, sites = operation.call, graph.sites_of(operation)

        def record(*args, **kwargs):
            made = call(*args, **kwargs)
            place = counts.setdefault(id(operation), 0)
            if place < len(sites) and not is_telling:
                counts[id(operation)] += 1
                is_telling.append(operation)
                try:
                    tell(sites[place], place, args, kwargs, made)
                finally:
                    is_telling.pop()
            return made

        return record

    calls = [(operation, wrapped(operation)) for operation in operations]
    with calls_replaced(calls):
        yield graph


@contextlib.contextmanager
def calls_replaced(calls):
    """Inside, operations call something else.

    Args:
        calls: list of `(operation, function in the place of its call)`.
    """
    for operation, call in calls:
        # In the instance, past Keras's tracking of attributes.
        operation.__dict__["call"] = call
    try:
        yield
    finally:
        for operation, _ in calls:
            del operation.__dict__["call"]


def told_first(function, layer, call):
    """A call that tells a function first what a layer reads, as float32."""

    def told(inputs, *args, **kwargs):
        function(layer, ops.cast(inputs, "float32"))
        return call(inputs, *args, **kwargs)

    return told
