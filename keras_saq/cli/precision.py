"""Training in fewer bits of float: `--mixed-precision`."""

import contextlib

from keras import dtype_policies

from keras_saq.quantizers import Quantizer

NAMES = ("float32", "mixed_bfloat16", "mixed_float16")


@contextlib.contextmanager
def mixed_precision(model, name):
    """Inside, a model computes in another precision; its output does not.

    Quantizers round in float32. Variables stay float32, and so does what is
    saved afterwards.

    Args:
        model: the model.
        name: `"mixed_bfloat16"` or `"mixed_float16"`; with `"float32"`
            nothing is changed.
    """
    if name == "float32":
        yield
        return
    kept = {
        id(getattr(t, "_keras_history", [None])[0])
        for t in getattr(model, "outputs", None) or ()
    }
    before = [
        (layer, layer.dtype_policy)
        for layer in model._flatten_layers()
        if layer.dtype_policy.name == "float32"
        and id(layer) not in kept
        and not isinstance(layer, Quantizer)
    ]
    try:
        for layer, _ in before:
            layer.dtype_policy = dtype_policies.get(name)
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy
