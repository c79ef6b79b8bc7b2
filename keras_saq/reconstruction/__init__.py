"""After quantization and before training: what needs no labels."""

from keras_saq.reconstruction.data_free import data_free
from keras_saq.reconstruction.equalize import equalize
from keras_saq.reconstruction.reconstruct import BlockError
from keras_saq.reconstruction.reconstruct import Reconstruction
from keras_saq.reconstruction.reconstruct import reconstruct

__all__ = [
    "BlockError",
    "Reconstruction",
    "data_free",
    "equalize",
    "reconstruct",
]
