"""Keras's masks, which travel beside tensors instead of as arguments.

A layer that makes a mask (Embedding with `mask_zero`, Masking, somebody's
`compute_mask`) attaches it to its output; a layer that reads one is given it
when it is called. No node of a Functional model says so. While a call is
followed, what each layer finds is noted here.
"""

import contextlib

import keras
from keras import tree
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.masking import set_keras_mask
from keras.src.layers import layer as layer_module
from keras.src.ops.node import Node

from keras_saq.layers.links import links_kept

# Behind every name that an argument can have, so that masks come last.
_ARGUMENT = "~masks"


class MaskedNode(Node):
    """A node that also has the masks of the tensors that its layer reads.

    And one of a call that may return `None` beside its tensors, as attention
    blocks do in the place of scores. Keras refuses to record such a call.

    Attributes:
        masks: list of `(tensor, mask)`, both symbolic.
    """

    def __init__(self, operation, call_args, call_kwargs, outputs):
        outputs = [t for t in tree.flatten(outputs) if t is not None]
        given, self.masks = operation.__dict__.pop("_noted", ({}, []))
        call_kwargs = {**call_kwargs, **given}
        read = {id(t) for t in tree.flatten((call_args, call_kwargs))}
        extra = [mask for _, mask in self.masks if id(mask) not in read]
        if extra:
            call_kwargs = {**call_kwargs, _ARGUMENT: extra}
        super().__init__(operation, call_args, call_kwargs, outputs)


@contextlib.contextmanager
def noted():
    """Inside, symbolic calls of layers make `MaskedNode`s."""
    keras_node, layer_module.Node = layer_module.Node, MaskedNode
    layer_class = keras.layers.Layer
    symbolic_call = layer_class.symbolic_call

    def note(self, *args, **kwargs):
        tensors = [
            t
            for t in tree.flatten((args, kwargs))
            if isinstance(t, keras.KerasTensor)
        ]
        pairs = [(t, get_keras_mask(t)) for t in tensors]
        given = {
            name: value
            for name, value in kwargs.items()
            if name == "mask" or name.endswith("_mask")
            if any(
                isinstance(t, keras.KerasTensor) for t in tree.flatten(value)
            )
        }
        pairs = [(t, mask) for t, mask in pairs if mask is not None]
        self.__dict__["_noted"] = given, pairs
        return symbolic_call(self, *args, **kwargs)

    layer_class.symbolic_call = note
    try:
        with links_kept():
            yield
    finally:
        layer_class.symbolic_call = symbolic_call
        layer_module.Node = keras_node


def attach(masks):
    """Attaches masks to tensors, a list of `(tensor, mask)`."""
    for tensor, mask in masks:
        set_keras_mask(tensor, mask)


def arguments_of(node):
    """`(args, kwargs, masks)` of a node, without what is noted here."""
    kwargs = dict(node.arguments.kwargs)
    kwargs.pop(_ARGUMENT, None)
    return node.arguments.args, kwargs, getattr(node, "masks", [])


def makes_masks(model):
    """Whether a layer at any depth in a model makes a mask."""
    return any(map(_makes_mask, model._flatten_layers()))


def _makes_mask(layer):
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    if isinstance(layer, keras.layers.Masking):
        return True
    module = getattr(type(layer).compute_mask, "__module__", "")
    return not module.startswith(("keras.src.", "keras_saq."))
