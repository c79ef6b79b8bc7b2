"""What gets which bits: configurations, rules, presets, JSON."""

from keras_saq.policy.config import QuantizeConfig
from keras_saq.policy.diff import PolicyDiff
from keras_saq.policy.paths import layer_paths
from keras_saq.policy.policy import QuantizePolicy
from keras_saq.policy.policy import get
from keras_saq.policy.rule import Rule
from keras_saq.policy.specs import make_quantizer

__all__ = [
    "PolicyDiff",
    "QuantizeConfig",
    "QuantizePolicy",
    "Rule",
    "get",
    "layer_paths",
    "make_quantizer",
]
