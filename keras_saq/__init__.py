"""Low-bit Keras models: pick bits, train flat, ship integers."""

from keras_saq import callbacks
from keras_saq.export import ExportReport
from keras_saq.export import FileReport
from keras_saq.export import LatencyReport
from keras_saq.export import NativeModel
from keras_saq.export import ParityReport
from keras_saq.export import benchmark_litert
from keras_saq.export import export_litert
from keras_saq.export import inspect_litert
from keras_saq.export import to_native
from keras_saq.export import verify_litert
from keras_saq.models import Comparison
from keras_saq.models import calibrate
from keras_saq.models import compare
from keras_saq.models import quantize_model
from keras_saq.models import streaming_model
from keras_saq.models import strip
from keras_saq.models.annotate import quantize_annotate_layer
from keras_saq.models.annotate import quantize_annotate_model
from keras_saq.models.annotate import quantize_apply
from keras_saq.models.annotate import quantize_scope
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.reconstruction import Reconstruction
from keras_saq.reconstruction import data_free
from keras_saq.reconstruction import reconstruct
from keras_saq.report import Summary
from keras_saq.report import summary
from keras_saq.report import write_report
from keras_saq.search import Budget
from keras_saq.search import PolicySearch
from keras_saq.search import search_policy
from keras_saq.sharpness import Distillation
from keras_saq.sharpness import SAQModel
from keras_saq.sharpness import SharpnessMonitor
from keras_saq.sharpness import exclude_scales_from_weight_decay
from keras_saq.sharpness import loss_landscape
from keras_saq.sharpness import measure_sharpness
from keras_saq.sharpness import plot_loss_landscape
from keras_saq.version import __version__

__all__ = [
    "Budget",
    "Comparison",
    "Distillation",
    "ExportReport",
    "FileReport",
    "LatencyReport",
    "NativeModel",
    "ParityReport",
    "PolicySearch",
    "QuantizeConfig",
    "QuantizePolicy",
    "Rule",
    "Reconstruction",
    "SAQModel",
    "SharpnessMonitor",
    "Summary",
    "__version__",
    "benchmark_litert",
    "calibrate",
    "compare",
    "callbacks",
    "data_free",
    "exclude_scales_from_weight_decay",
    "export_litert",
    "inspect_litert",
    "loss_landscape",
    "measure_sharpness",
    "plot_loss_landscape",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
    "reconstruct",
    "search_policy",
    "streaming_model",
    "strip",
    "summary",
    "to_native",
    "verify_litert",
    "write_report",
]
