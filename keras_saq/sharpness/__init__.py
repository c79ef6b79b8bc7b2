"""Sharpness-aware training of quantized models, and sharpness measured."""

from keras_saq.sharpness import strategies
from keras_saq.sharpness.distillation import Distillation
from keras_saq.sharpness.landscape import Landscape
from keras_saq.sharpness.landscape import loss_landscape
from keras_saq.sharpness.landscape import plot_loss_landscape
from keras_saq.sharpness.measure import Sharpness
from keras_saq.sharpness.measure import measure_sharpness
from keras_saq.sharpness.model import SAQModel
from keras_saq.sharpness.monitor import SharpnessMonitor
from keras_saq.sharpness.optimizers import exclude_scales_from_weight_decay

__all__ = [
    "Distillation",
    "Landscape",
    "SAQModel",
    "Sharpness",
    "SharpnessMonitor",
    "exclude_scales_from_weight_decay",
    "loss_landscape",
    "measure_sharpness",
    "plot_loss_landscape",
    "strategies",
]
