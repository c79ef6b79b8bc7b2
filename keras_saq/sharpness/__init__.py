"""Sharpness-aware training of quantized models."""

from keras_saq.sharpness.model import SAQModel

__all__ = ["SAQModel"]
