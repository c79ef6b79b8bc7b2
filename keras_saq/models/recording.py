"""What the operations of a model make, call by call, as it is run."""

import contextlib

from keras_saq.models.graph import Graph


@contextlib.contextmanager
def told_of_calls(model, tell):
    """Inside, `tell` is told of each call in a model that a `Graph` lists.

    Args:
        model: any Keras model, run eagerly.
        tell: function of the `Site`, the arguments of `call` as a tuple and a
            dict, and what it returned.
    """
    graph = Graph(model)
    counts = {}
    # What `tell` calls itself is not told.
    is_telling = []
    operations = {id(site.operation): site.operation for site in graph.sites}

    def wrapped(operation):
        call, sites = operation.call, graph.sites_of(operation)

        def record(*args, **kwargs):
            made = call(*args, **kwargs)
            place = counts.setdefault(id(operation), 0)
            if place < len(sites) and not is_telling:
                counts[id(operation)] += 1
                is_telling.append(operation)
                try:
                    tell(sites[place], args, kwargs, made)
                finally:
                    is_telling.pop()
            return made

        return record

    for operation in operations.values():
        # In the instance, past Keras's tracking of attributes.
        operation.__dict__["call"] = wrapped(operation)
    try:
        yield graph
    finally:
        for operation in operations.values():
            del operation.__dict__["call"]
