"""Sharpness-aware training of quantized models."""

from keras_saq.sharpness import strategies
from keras_saq.sharpness.distillation import Distillation
from keras_saq.sharpness.model import SAQModel
from keras_saq.sharpness.optimizers import exclude_scales_from_weight_decay

__all__ = [
    "Distillation",
    "SAQModel",
    "exclude_scales_from_weight_decay",
    "strategies",
]
