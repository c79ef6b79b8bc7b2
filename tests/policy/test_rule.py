import dataclasses

import keras
import pytest

from keras_saq.policy import QuantizeConfig
from keras_saq.policy import Rule
from keras_saq.quantizers import LSQ

layers = keras.layers


@keras.saving.register_keras_serializable("test_rule")
class Dense(layers.Dense):
    """Has the name of a Keras layer."""


@pytest.mark.parametrize(
    "pattern, path, expected",
    [
        (".*", "block/conv", True),
        ("block", "block", True),
        ("block", "block/conv", False),
        ("conv", "block/conv", False),
        ("block/.*", "block/conv", True),
        (".*/conv", "outer/block/conv", True),
        ("block_[12]", "block_12", False),
    ],
)
def test_the_whole_path_is_matched(pattern, path, expected):
    rule = Rule(path=pattern, weight_bits=4)
    assert rule.matches(path, layers.Dense(1)) is expected
    assert rule.matches(path, "Dense") is expected


@pytest.mark.parametrize(
    "layer_type, expected",
    [
        ("Dense", {"keras", "own"}),
        (layers.Dense, {"keras", "own"}),
        ("test_rule>Dense", {"own"}),
        (Dense, {"own"}),
        ("Layer", {"keras", "own", "conv"}),
        ("Conv2D", {"conv"}),
        ("Conv", set()),
        (None, {"keras", "own", "conv"}),
    ],
)
def test_layer_type(layer_type, expected):
    rule = Rule(layer_type=layer_type, weight_bits=4)
    candidates = {
        "keras": layers.Dense(1),
        "own": Dense(1),
        "conv": layers.Conv2D(1, 1),
    }
    matched = {k for k, layer in candidates.items() if rule.matches(k, layer)}
    assert matched == expected


def test_a_class_name_stands_for_a_layer():
    rule = Rule(layer_type="Dense", weight_bits=4)
    assert rule.matches("a", "Dense")
    assert not rule.matches("a", "Conv2D")


def test_predicate_is_asked_last():
    asked = []

    def is_small(path, layer):
        asked.append(path)
        return layer.units < 10

    rule = Rule(
        path="a.*", layer_type="Dense", predicate=is_small, weight_bits=4
    )
    assert rule.matches("a1", layers.Dense(9))
    assert not rule.matches("a2", layers.Dense(10))
    assert not rule.matches("a3", layers.Conv2D(1, 1))
    assert not rule.matches("b", layers.Dense(9))
    assert asked == ["a1", "a2"]
    with pytest.raises(ValueError, match="needs the layer itself.*'Dense'"):
        rule.matches("a1", "Dense")


def test_an_error_in_a_predicate_names_rule_and_layer():
    rule = Rule(predicate=lambda path, layer: layer.units, weight_bits=4)
    with pytest.raises(ValueError, match="'x/relu' of type ReLU.*units"):
        rule.matches("x/relu", layers.ReLU())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({}, "none of them"),
        ({"weight_bits": 4, "keep_float": True}, "weight_bits and keep_float"),
        ({"config": QuantizeConfig(), "weight_bits": 4}, "and config"),
        ({"activation_bits": 4}, "needs `weight_bits`"),
        ({"weight_bits": 1}, "between 2 and 8"),
        ({"weight_bits": 4, "activation_bits": 9}, "activation_bits=9"),
        ({"weight_bits": 4, "path": "("}, "regular expression"),
        ({"weight_bits": 4, "path": None}, "regular expression"),
        ({"weight_bits": 4, "layer_type": 3}, "of type int"),
        ({"weight_bits": 4, "predicate": "conv"}, "must be a function"),
        ({"config": {"kernel": 4}}, "get_weights_and_quantizers"),
        ({"weight_bits": 4, "weight_quantizer": 4}, "weight_quantizer=4"),
        ({"weight_bits": 4, "activation_quantizer": {}}, "must be the name"),
    ],
)
def test_bad_rules(fields, message):
    with pytest.raises(ValueError, match=message):
        Rule(**fields)


def test_a_quantizer_is_kept_as_data():
    rule = Rule(weight_bits=4, weight_quantizer=LSQ(4, initial_scale="lsq"))
    spec = rule.weight_quantizer
    assert spec["class_name"] == "LSQ"
    assert spec["config"]["initial_scale"] == "lsq"
    assert dataclasses.replace(rule) == rule


def test_repr_shows_what_was_said():
    rule = Rule(path="a", layer_type="Dense", weight_bits=4)
    assert repr(rule) == "Rule(weight_bits=4, path='a', layer_type='Dense')"
