import keras
import pytest

from keras_saq import policy as policies
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.policy import make_quantizer
from keras_saq.quantizers import LSQ

layers = keras.layers


@pytest.mark.parametrize(
    "name, bits",
    [
        ("w8a8", (8, 8)),
        ("w4a8", (4, 8)),
        ("w4a4", (4, 4)),
        ("w3a3", (3, 3)),
        ("w2a2", (2, 2)),
        ("w5a6", (5, 6)),
        ("w8", (8, None)),
        ("w4", (4, None)),
        ("w2", (2, None)),
    ],
)
def test_presets(name, bits):
    policy = policies.get(name)
    (rule,) = policy.rules
    assert (rule.weight_bits, rule.activation_bits) == bits
    assert (policy.first_last_bits, policy.stream_bits) == (8, 8)
    assert policy.weight_only is (bits[1] is None)
    assert policies.get(policy) is policy


@pytest.mark.parametrize("name", ["a8", "int4", "", "w4a8x", "W4A8", "w"])
def test_unknown_preset(name):
    with pytest.raises(ValueError, match="Unknown preset"):
        policies.get(name)


@pytest.mark.parametrize("name", ["w1a8", "w9a8", "w4a1", "w4a16", "w16"])
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
    assert policy.rule_for("head/logits", layers.Dense(1)).weight_bits == 8
    assert policy.rule_for("logits", layers.Dense(1)).weight_bits == 2
    assert policy.rule_for("conv1", layers.Conv2D(1, 1)).weight_bits == 4
    assert policy.rule_for("conv1", "Conv2D").weight_bits == 4
    assert policy.rule_for("stem", layers.Conv2D(1, 1)) is None


def test_weight_only_counts_every_rule():
    weights, both = Rule(weight_bits=4), Rule(weight_bits=4, activation_bits=4)
    float_rule = Rule(keep_float=True)
    assert QuantizePolicy(rules=(float_rule, weights)).weight_only
    assert not QuantizePolicy(rules=(weights, both)).weight_only


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"scheme": "tpu"}, "scheme='tpu'"),
        ({"rules": [{"weight_bits": 4}]}, "of type dict"),
        ({"first_last_bits": 1}, "first_last_bits"),
        ({"stream_bits": 16}, "stream_bits"),
        ({"weight_quantizer": None}, "weight_quantizer=None"),
        ({"activation_quantizer": 8}, "activation_quantizer=8"),
        ({"activation_quantizer": "lqs"}, "no quantizer 'lqs'.*'lsq'"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        QuantizePolicy(**{"rules": (), **fields})


def test_kinds_of_quantizers():
    own = Rule(weight_bits=4, weight_quantizer="dorefa")
    policy = QuantizePolicy(
        rules=(own, Rule(weight_bits=4)),
        activation_quantizer=LSQ(8, initial_scale="minmax"),
    )
    assert policy.weight_quantizer_of(own) == "dorefa"
    assert policy.weight_quantizer_of(policy.rules[1]) == "lsq"
    spec = policy.activation_quantizer_of(own)
    quantizer = make_quantizer(spec, num_bits=3, signed=None, name="inputs")
    assert isinstance(quantizer, LSQ)
    assert (quantizer.num_bits, quantizer.signed) == (3, None)
    assert (quantizer.initial_scale, quantizer.name) == ("minmax", "inputs")
    assert make_quantizer(spec, num_bits=3) is not quantizer
    quantizer = make_quantizer("pact", num_bits=3, initial_scale="mse")
    assert type(quantizer).__name__ == "PACT"


def test_a_kind_says_nothing_about_state():
    used = LSQ(8, initial_scale="minmax")
    used.initialize([1.0, 2.0])
    policy = QuantizePolicy(rules=(), activation_quantizer=used)
    quantizer = make_quantizer(policy.activation_quantizer, num_bits=8)
    assert not quantizer.built
    new = LSQ(8, initial_scale="minmax", name=used.name)
    assert policy == QuantizePolicy(rules=(), activation_quantizer=new)


def network():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="stem")(inputs)
    block = keras.Sequential(
        [layers.Conv2D(4, 1, name="conv"), layers.ReLU(name="relu")],
        name="block",
    )
    x = layers.GlobalAveragePooling2D(name="pool")(block(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_unused_rules():
    misspelt = Rule(path="haed", weight_bits=8)
    inside = Rule(path="block/conv", weight_bits=8)
    wrong_type = Rule(layer_type="Embedding", weight_bits=8)
    rest = Rule(weight_bits=4)
    too_late = Rule(path="head", weight_bits=8)
    policy = QuantizePolicy(
        rules=(misspelt, inside, wrong_type, rest, too_late)
    )
    assert policy.unused_rules(network()) == [misspelt, wrong_type, too_late]
    assert policies.get("w4a8").unused_rules(network()) == []


def test_equal_rules_are_told_apart():
    rule = Rule(path="head", weight_bits=8)
    policy = QuantizePolicy(rules=(rule, Rule(path="head", weight_bits=8)))
    assert policy.unused_rules(network()) == [rule]
