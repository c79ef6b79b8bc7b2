"""Says which layers have no place in a file, all of them at once."""

from keras_saq.export.lowering.rules import why_not


def refuse_unsupported(graph):
    """Raises one error that names every layer without a kernel."""
    refused = [row for site in graph.sites if (row := _refusal(site))]
    if refused:
        raise ValueError(
            "These layers have no kernel in a LiteRT file:\n"
            + "\n".join(refused)
            + "\nReplace them, or leave them out of the exported model."
        )


def _refusal(site):
    """A line that says why a site cannot be lowered, or `None`."""
    reason = why_not(site)
    if reason is None:
        return None
    layer = site.operation
    name = getattr(layer, "_float_class", type(layer)).__name__
    return f"  {site.path} ({name}): {reason}"
