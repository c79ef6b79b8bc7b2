"""The kernels of an integer program, one family per file.

Each has its name in LiteRT's schema, its options, and in NumPy what it
computes: `KERNELS` maps the names that an `Op` uses to `Kernel`s.
"""

from keras_saq.export.kernels import conversions
from keras_saq.export.kernels import dynamic
from keras_saq.export.kernels import elementwise
from keras_saq.export.kernels import fragments
from keras_saq.export.kernels import functions
from keras_saq.export.kernels import moves
from keras_saq.export.kernels import pooling
from keras_saq.export.kernels import products
from keras_saq.export.kernels import weighted
from keras_saq.export.kernels.kernel import Kernel

KERNELS = {
    **conversions.KERNELS,
    **dynamic.KERNELS,
    **elementwise.KERNELS,
    **fragments.KERNELS,
    **functions.KERNELS,
    **moves.KERNELS,
    **pooling.KERNELS,
    **products.KERNELS,
    **weighted.KERNELS,
}

__all__ = ["KERNELS", "Kernel"]
