"""Quantizers and initial scales: pure numerics, which know no layer."""

from keras_saq.quantizers.calibration import calibration_scope
from keras_saq.quantizers.calibration import is_calibrating
from keras_saq.quantizers.lsq import LSQ
from keras_saq.quantizers.lsq import check_bits

__all__ = ["LSQ", "calibration_scope", "check_bits", "is_calibrating"]
