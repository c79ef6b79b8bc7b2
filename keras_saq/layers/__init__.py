"""How one layer becomes quantized."""

from keras_saq.layers.perturbation import PerturbationScope
from keras_saq.layers.quantized import Quantized
from keras_saq.layers.quantized import quantize_layer
from keras_saq.layers.quantized import quantized_class
from keras_saq.layers.resolve import resolve

__all__ = [
    "PerturbationScope",
    "Quantized",
    "quantize_layer",
    "quantized_class",
    "resolve",
]
