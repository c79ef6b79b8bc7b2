"""How layers are named to a user, and how they are refused."""

from keras_saq.layers import roles


def refusal_of(lines):
    """The message that says so."""
    return (
        "No LiteRT file can hold these layers:\n"
        + "\n".join(lines)
        + "\nReplace them, or leave them out of the exported model."
    )


def class_name(operation):
    """The class of what a site calls, as the user knows it."""
    operation = roles.unwrap(operation)
    return getattr(operation, "_float_class", type(operation)).__name__


def refused_line(site, reason):
    """One of the lines: path, class and reason of a layer."""
    return f"  {site.path} ({class_name(site.operation)}): {reason}"
