"""What a person sees: tables and plots."""

from keras_saq.report.summary import Summary
from keras_saq.report.summary import summary

__all__ = ["Summary", "summary"]
