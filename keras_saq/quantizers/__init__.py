"""Quantizers and initial scales: pure numerics, which know no layer."""

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.base import check_bits
from keras_saq.quantizers.calibration import all_seen
from keras_saq.quantizers.calibration import calibration_scope
from keras_saq.quantizers.calibration import function_behind
from keras_saq.quantizers.calibration import is_calibrating
from keras_saq.quantizers.dorefa import DoReFa
from keras_saq.quantizers.fake_quant import composed_kernels
from keras_saq.quantizers.lcq import LCQ
from keras_saq.quantizers.liq import LIQ
from keras_saq.quantizers.lsq import LSQ
from keras_saq.quantizers.lsq_plus import LSQPlus
from keras_saq.quantizers.moving_average import MovingAverage
from keras_saq.quantizers.nipq import NIPQ
from keras_saq.quantizers.noise_tempering import NoiseTempering
from keras_saq.quantizers.pact import PACT
from keras_saq.quantizers.pass_through import is_passing_through
from keras_saq.quantizers.pass_through import pass_through_scope
from keras_saq.quantizers.power_of_two import PowerOfTwo
from keras_saq.quantizers.rand import RAND
from keras_saq.quantizers.registry import check_role
from keras_saq.quantizers.registry import get
from keras_saq.quantizers.registry import known_names

__all__ = [
    "DoReFa",
    "LCQ",
    "LIQ",
    "LSQ",
    "LSQPlus",
    "MovingAverage",
    "NIPQ",
    "NoiseTempering",
    "PACT",
    "PowerOfTwo",
    "Quantizer",
    "RAND",
    "all_seen",
    "calibration_scope",
    "check_bits",
    "check_role",
    "composed_kernels",
    "function_behind",
    "get",
    "is_calibrating",
    "is_passing_through",
    "known_names",
    "pass_through_scope",
]
