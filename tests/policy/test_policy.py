import pytest

from keras_saq import policy as policies
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.quantizers import LSQ


def test_presets():
    policy = policies.get("w4a8")
    (rule,) = policy.rules
    assert (rule.weight_bits, rule.activation_bits) == (4, 8)
    assert policy.first_last_bits == 8
    assert policies.get(policy) is policy


@pytest.mark.parametrize("name", ["w4", "int4", "", "w4a8x", "W4A8"])
def test_unknown_preset(name):
    with pytest.raises(ValueError, match="Unknown preset"):
        policies.get(name)


@pytest.mark.parametrize("name", ["w1a8", "w9a8", "w4a1", "w4a16"])
def test_preset_with_bits_out_of_range(name):
    with pytest.raises(ValueError, match="between 2 and 8"):
        policies.get(name)


def test_not_a_policy():
    with pytest.raises(ValueError, match="of type int"):
        policies.get(4)


def test_first_rule_wins():
    policy = QuantizePolicy(
        rules=(
            Rule(path="head/.*", weight_bits=8, activation_bits=8),
            Rule(layer_type="Dense", weight_bits=2, activation_bits=4),
            Rule(path="conv.*", weight_bits=4, activation_bits=4),
        )
    )
    assert policy.rule_for("head/logits", "Dense").weight_bits == 8
    assert policy.rule_for("logits", "Dense").weight_bits == 2
    assert policy.rule_for("conv1", "Conv2D").weight_bits == 4
    assert policy.rule_for("stem", "Conv2D") is None


def test_json_round_trip(tmp_path):
    policy = policies.get("w3a3")
    policy.save(tmp_path / "policy.json")
    assert policies.get(str(tmp_path / "policy.json")) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 99, "rules": []}',
        '{"schema_version": 1, "rules": [{"weight_bits": 4}]}',
        '{"schema_version": 1, "rules": [], "surprise": 1}',
    ],
)
def test_bad_json(text):
    with pytest.raises(ValueError, match="not a policy of keras_saq"):
        QuantizePolicy.from_json(text)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        policies.get(str(tmp_path / "none.json"))


def test_bad_fields():
    with pytest.raises(ValueError, match="regular expression"):
        Rule(path="(", weight_bits=4, activation_bits=4)
    with pytest.raises(ValueError, match="scheme"):
        QuantizePolicy(rules=(), scheme="tpu")


def test_config_round_trip():
    config = QuantizeConfig(
        {"kernel": LSQ(4, narrow_range=True, channel_axes=(-1,))},
        outputs=LSQ(8, signed=False),
        bias_grid=True,
    )
    copy = QuantizeConfig.from_config(config.get_config())
    assert copy.get_config() == config.get_config()
    assert copy.inputs is None
