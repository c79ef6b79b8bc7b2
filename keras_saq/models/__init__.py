"""From a float model to a quantized one, and back from a file."""

from keras_saq.models.calibration import calibrate
from keras_saq.models.calibration import calibrate_from_fit_data
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.calibration import require_calibrated
from keras_saq.models.compare import compare
from keras_saq.models.comparison import Comparison
from keras_saq.models.model import EXPORTERS
from keras_saq.models.model import FORECASTS
from keras_saq.models.model import SUMMARIES
from keras_saq.models.model import FloatLayer
from keras_saq.models.model import Trainable
from keras_saq.models.quantize import quantize_model
from keras_saq.models.streaming import initial_states
from keras_saq.models.streaming import stream
from keras_saq.models.streaming import streaming_model
from keras_saq.models.strip import strip

__all__ = [
    "Comparison",
    "EXPORTERS",
    "FORECASTS",
    "FloatLayer",
    "SUMMARIES",
    "Trainable",
    "calibrate",
    "calibrate_from_fit_data",
    "compare",
    "initial_states",
    "quantize_model",
    "quantized_layers",
    "require_calibrated",
    "stream",
    "streaming_model",
    "strip",
]
