"""Data sets, as plain arrays."""

from keras_saq.data.digits import Digits
from keras_saq.data.digits import load_digits

__all__ = ["Digits", "load_digits"]
