"""Integers out: exact LiteRT files, and the proof that they are exact."""

from keras_saq.export.contents import inspect_litert
from keras_saq.export.file_report import FileReport
from keras_saq.export.forecast import forecast
from keras_saq.export.latency import LatencyReport
from keras_saq.export.latency import benchmark_litert
from keras_saq.export.litert import export_litert
from keras_saq.export.native import NativeModel
from keras_saq.export.native import to_native
from keras_saq.export.parity import ParityReport
from keras_saq.export.report import ExportReport
from keras_saq.export.verify import verify_litert
from keras_saq.models import EXPORTERS
from keras_saq.models import FORECASTS

EXPORTERS["litert"] = export_litert
FORECASTS["litert"] = forecast

__all__ = [
    "ExportReport",
    "FileReport",
    "LatencyReport",
    "NativeModel",
    "ParityReport",
    "benchmark_litert",
    "export_litert",
    "inspect_litert",
    "to_native",
    "verify_litert",
]
