"""Low-bit Keras models: pick bits, train flat, ship integers."""

from keras_saq.export import ExportReport
from keras_saq.export import ParityReport
from keras_saq.export import export_litert
from keras_saq.export import verify_litert
from keras_saq.models import calibrate
from keras_saq.models import quantize_model
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.report import Summary
from keras_saq.report import summary
from keras_saq.sharpness import SAQModel
from keras_saq.version import __version__

__all__ = [
    "ExportReport",
    "ParityReport",
    "QuantizeConfig",
    "QuantizePolicy",
    "Rule",
    "SAQModel",
    "Summary",
    "__version__",
    "calibrate",
    "export_litert",
    "quantize_model",
    "summary",
    "verify_litert",
]
