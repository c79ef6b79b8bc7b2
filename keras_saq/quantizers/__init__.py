"""Quantizers and initial scales: pure numerics, which know no layer."""

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.base import check_bits
from keras_saq.quantizers.calibration import calibration_scope
from keras_saq.quantizers.calibration import is_calibrating
from keras_saq.quantizers.lsq import LSQ
from keras_saq.quantizers.registry import check_role
from keras_saq.quantizers.registry import get
from keras_saq.quantizers.registry import known_names

__all__ = [
    "LSQ",
    "Quantizer",
    "calibration_scope",
    "check_bits",
    "check_role",
    "get",
    "is_calibrating",
    "known_names",
]
