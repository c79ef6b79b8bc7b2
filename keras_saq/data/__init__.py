"""Data sets, as plain arrays."""

from keras_saq.data.augment import get_augmentation
from keras_saq.data.augment import shift_and_flip
from keras_saq.data.batches import Batches
from keras_saq.data.batches import Preprocessing
from keras_saq.data.digits import Digits
from keras_saq.data.digits import load_digits
from keras_saq.data.images import ImageFiles
from keras_saq.data.images import fit_image
from keras_saq.data.proxy import ProxySplit
from keras_saq.data.proxy import proxy_split
from keras_saq.data.samples import Samples
from keras_saq.data.sources import open_source

__all__ = [
    "Batches",
    "Digits",
    "ImageFiles",
    "Preprocessing",
    "ProxySplit",
    "Samples",
    "fit_image",
    "get_augmentation",
    "load_digits",
    "open_source",
    "proxy_split",
    "shift_and_flip",
]
