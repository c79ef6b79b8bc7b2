"""Attention whose two products are separate, so that each is quantized.

The fused `dot_product_attention` has no place for a quantizer between the
softmax and the product with the values. A quantized attention layer always
takes the other path that Keras has for it, which computes the same.
"""

import contextlib

from keras import layers

_MULTI_HEAD = layers.MultiHeadAttention
_GROUPED = layers.GroupQueryAttention


class UnfusedAttention:
    """Mixin of quantized attention layers."""

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        *_,
        **kwargs,
    ):
        arguments = (query, key, value, attention_mask, training)
        if isinstance(self, _MULTI_HEAD):
            kwargs["return_attention_scores"] = True
            return super()._compute_attention(*arguments, **kwargs)
        wanted = self._return_attention_scores
        self._return_attention_scores = True
        try:
            return super()._compute_attention(*arguments, **kwargs)
        finally:
            self._return_attention_scores = wanted


def can_unfuse(layer_class):
    """Whether `UnfusedAttention` fits a class."""
    for keras_class in (_MULTI_HEAD, _GROUPED):
        if issubclass(layer_class, keras_class):
            own = layer_class._compute_attention
            return own is keras_class._compute_attention
    return False


@contextlib.contextmanager
def unfused(layer):
    """Inside, an attention layer computes its products separately."""
    own_class = type(layer)
    if not can_unfuse(own_class) or layer._flash_attention:
        yield
        return
    layer.__class__ = type(
        own_class.__name__, (UnfusedAttention, own_class), {}
    )
    try:
        yield
    finally:
        layer.__class__ = own_class
