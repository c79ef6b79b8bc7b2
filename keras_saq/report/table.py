"""Plain text tables, for what imports them from here."""

from keras_saq.table import format_table

__all__ = ["format_table"]
