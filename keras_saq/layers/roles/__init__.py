"""What each layer class and operation of Keras is to this library.

`table` has a row for each; `find` finds it. Everything else that is asked of
a layer is a function here.
"""

from keras_saq.layers.roles.channels import is_pointwise
from keras_saq.layers.roles.find import family
from keras_saq.layers.roles.find import find
from keras_saq.layers.roles.find import of_class
from keras_saq.layers.roles.find import unwrap
from keras_saq.layers.roles.functions import FUNCTIONS
from keras_saq.layers.roles.functions import function_of
from keras_saq.layers.roles.questions import accumulates
from keras_saq.layers.roles.questions import activation_is_last
from keras_saq.layers.roles.questions import activation_of
from keras_saq.layers.roles.questions import function_name
from keras_saq.layers.roles.questions import has_integer_bias
from keras_saq.layers.roles.questions import is_add
from keras_saq.layers.roles.questions import is_batch_norm
from keras_saq.layers.roles.questions import is_concatenate
from keras_saq.layers.roles.questions import is_integer
from keras_saq.layers.roles.questions import is_lookup
from keras_saq.layers.roles.questions import is_packable
from keras_saq.layers.roles.questions import is_product
from keras_saq.layers.roles.questions import is_relu
from keras_saq.layers.roles.questions import is_separable
from keras_saq.layers.roles.questions import is_softmax
from keras_saq.layers.roles.questions import is_weighted
from keras_saq.layers.roles.questions import keeps_grid
from keras_saq.layers.roles.questions import unsigned
from keras_saq.layers.roles.questions import weight
from keras_saq.layers.roles.questions import weight_axes
from keras_saq.layers.roles.role import ALWAYS
from keras_saq.layers.roles.role import AS_INPUTS
from keras_saq.layers.roles.role import Role
from keras_saq.layers.roles.table import LAYERS
from keras_saq.layers.roles.table import OPERATIONS

__all__ = [
    "ALWAYS",
    "AS_INPUTS",
    "FUNCTIONS",
    "LAYERS",
    "OPERATIONS",
    "Role",
    "accumulates",
    "activation_is_last",
    "activation_of",
    "family",
    "find",
    "function_name",
    "function_of",
    "has_integer_bias",
    "is_add",
    "is_batch_norm",
    "is_concatenate",
    "is_integer",
    "is_lookup",
    "is_packable",
    "is_pointwise",
    "is_product",
    "is_relu",
    "is_separable",
    "is_softmax",
    "is_weighted",
    "keeps_grid",
    "of_class",
    "unsigned",
    "unwrap",
    "weight",
    "weight_axes",
]
