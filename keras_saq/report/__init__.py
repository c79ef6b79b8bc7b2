"""What a person sees: tables and plots."""

from keras_saq.models import SUMMARIES
from keras_saq.report.summary import Summary
from keras_saq.report.summary import summary

SUMMARIES["quantization"] = summary

__all__ = ["Summary", "summary"]
