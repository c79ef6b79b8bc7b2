"""What no file can hold, found before one is made; all of it at once."""

import numpy as np
from keras import ops

from keras_saq.export.lowering.rules import why_float
from keras_saq.export.wording import refusal_of
from keras_saq.export.wording import refused_line
from keras_saq.models.randomness import RANDOM


def refuse_impossible(graph):
    """Raises one error that names every layer that no file can hold.

    Args:
        graph: a `Graph`.

    Raises:
        ValueError: if a layer draws random numbers, reads or makes text, has
            its channels first, a quantizer whose codes no kernel reads, or a
            weight that is not finite.
    """
    refused = find_impossible(graph)
    if refused:
        raise ValueError(refusal_of(refused.values()))


def find_impossible(graph):
    """Path of each layer that no file can hold: a line that says so."""
    return {
        site.path: refused_line(site, reason)
        for site in graph.sites
        if (reason := _why_impossible(site)) is not None
    }


def _why_impossible(site):
    layer = site.operation
    if site.closed == RANDOM or RANDOM in (why_float(site) or ""):
        return (
            f"{RANDOM}, at inference too, and a file cannot; compute without "
            "where `training` is false"
        )
    if getattr(layer, "stateful", False):
        return (
            "stateful=True keeps a state between calls, and a file does not; "
            "make it an input and an output of the model"
        )
    if any(v.dtype == "string" for v in [*site.inputs, *site.outputs]):
        return "it reads or makes text; look words up before the model"
    if getattr(layer, "data_format", None) == "channels_first":
        return "its data format is channels_first; LiteRT is channels_last"
    for quantizer in getattr(layer, "quantizers", ()):
        if quantizer.export_obstacle is not None:
            return quantizer.export_obstacle
    for variable in getattr(layer, "variables", ()):
        values = ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return (
                f"its '{variable.name}' has values that are not finite; go "
                "back to a checkpoint from before the training diverged"
            )
    return None
