"""Keras callbacks for training quantized models."""

from keras_saq.callbacks.freezing import ScaleFreezing
from keras_saq.callbacks.reestimation import BatchNormReestimation
from keras_saq.callbacks.stopping import BudgetStopping
from keras_saq.callbacks.stopping import ParityStopping
from keras_saq.models.reestimate import reestimate_batch_norm
from keras_saq.sharpness.monitor import QuantizationMonitor
from keras_saq.sharpness.monitor import SharpnessMonitor

__all__ = [
    "BatchNormReestimation",
    "BudgetStopping",
    "ParityStopping",
    "QuantizationMonitor",
    "ScaleFreezing",
    "SharpnessMonitor",
    "reestimate_batch_norm",
]
