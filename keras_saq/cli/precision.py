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

    Yields:
        `function()`, a context in which the layers are float32 again, to be
        saved.
    """
    if name == "float32":
        yield contextlib.nullcontext
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

    @contextlib.contextmanager
    def changed(policies):
        kept = [layer.dtype_policy for layer, _ in before]
        try:
            for (layer, _), policy in zip(before, policies):
                layer.dtype_policy = policy
            yield
        finally:
            for (layer, _), policy in zip(before, kept):
                layer.dtype_policy = policy

    with changed([dtype_policies.get(name)] * len(before)):
        yield lambda: changed([policy for _, policy in before])
