"""Parts of a model that no integer kernel computes, as float LiteRT graphs."""

from keras_saq.export.fragments.convert import convert
from keras_saq.export.fragments.fragment import ConversionError
from keras_saq.export.fragments.fragment import Fragment
from keras_saq.export.fragments.groups import Group
from keras_saq.export.fragments.groups import find_groups

__all__ = ["ConversionError", "Fragment", "Group", "convert", "find_groups"]
