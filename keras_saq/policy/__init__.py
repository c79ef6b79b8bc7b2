"""What gets which bits: configurations, rules, presets, JSON."""

from keras_saq.policy.config import QuantizeConfig
from keras_saq.policy.policy import QuantizePolicy
from keras_saq.policy.policy import Rule
from keras_saq.policy.policy import get

__all__ = ["QuantizeConfig", "QuantizePolicy", "Rule", "get"]
