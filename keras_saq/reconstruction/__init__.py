"""After quantization and before training: what needs no labels."""

from keras_saq.reconstruction.data_free import data_free
from keras_saq.reconstruction.equalize import equalize
from keras_saq.reconstruction.reconstruct import BlockError
from keras_saq.reconstruction.reconstruct import Reconstruction
from keras_saq.reconstruction.reconstruct import reconstruct
from keras_saq.reconstruction.zero_shot import ZeroShot
from keras_saq.reconstruction.zero_shot import zero_shot

__all__ = [
    "BlockError",
    "Reconstruction",
    "ZeroShot",
    "data_free",
    "equalize",
    "reconstruct",
    "zero_shot",
]
