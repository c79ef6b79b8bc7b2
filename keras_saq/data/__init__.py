"""Data sets, as plain arrays."""

from keras_saq.data.augment import shift_and_flip
from keras_saq.data.digits import Digits
from keras_saq.data.digits import load_digits
from keras_saq.data.proxy import ProxySplit
from keras_saq.data.proxy import proxy_split

__all__ = [
    "Digits",
    "ProxySplit",
    "load_digits",
    "proxy_split",
    "shift_and_flip",
]
