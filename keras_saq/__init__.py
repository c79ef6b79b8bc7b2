"""Low-bit Keras models: pick bits, train flat, ship integers."""

from keras_saq.models import calibrate
from keras_saq.models import quantize_model
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.report import Summary
from keras_saq.report import summary
from keras_saq.sharpness import SAQModel
