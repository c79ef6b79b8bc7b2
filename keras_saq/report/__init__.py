"""What a person sees: tables, plots and the page of a report."""

from keras_saq.models import SUMMARIES
from keras_saq.report.summary import Summary
from keras_saq.report.summary import summary
from keras_saq.report.write import write_report

SUMMARIES["quantization"] = summary

__all__ = ["Summary", "summary", "write_report"]
