"""How good each candidate is: one function per method.

A method is a function of a `PolicySearch` that returns scores: a list with an
array for each group of the space, one number per candidate, larger is better.
The integer program takes the assignment with the largest sum.
"""

from keras_saq.search.methods.first_order import mpiq
from keras_saq.search.methods.plain import random
from keras_saq.search.methods.plain import uniform_assignment
from keras_saq.search.methods.scale import scale
from keras_saq.search.methods.sensitivity import sensitivity
from keras_saq.search.methods.softmax import log_probabilities
from keras_saq.search.methods.softmax import softmax

__all__ = [
    "log_probabilities",
    "mpiq",
    "random",
    "scale",
    "sensitivity",
    "softmax",
    "uniform_assignment",
]
