import pytest

from keras_saq import policy as policies
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule

HEAD = Rule(path="head", weight_bits=8, activation_bits=8)
DENSE = Rule(layer_type="Dense", weight_bits=4, activation_bits=8)
REST = Rule(weight_bits=4, activation_bits=8)
LOW_REST = Rule(weight_bits=2, activation_bits=8)


def policy(*rules, **fields):
    return QuantizePolicy(rules=rules, **fields)


def test_no_difference():
    diff = policies.get("w4a8").diff(policies.get("w4a8"))
    assert not diff
    assert str(diff) == "no difference"


def test_fields_and_rules():
    before = policy(HEAD, REST, stream_bits=8)
    after = policy(DENSE, LOW_REST, stream_bits=6, weight_quantizer="pact")
    diff = before.diff(after)
    assert diff
    assert diff.fields == {
        "stream_bits": (8, 6),
        "weight_quantizer": ("lsq", "pact"),
    }
    assert diff.removed == (HEAD,)
    assert diff.added == (DENSE,)
    assert diff.changed == ((REST, LOW_REST),)
    assert not diff.reordered
    assert str(diff).splitlines() == [
        "stream_bits: 8 -> 6",
        "weight_quantizer: 'lsq' -> 'pact'",
        f"- {HEAD}",
        f"+ {DENSE}",
        f"~ {REST} -> {LOW_REST}",
    ]


def test_order():
    diff = policy(HEAD, DENSE, REST).diff(policy(DENSE, HEAD, REST))
    assert diff.reordered
    assert not (diff.added or diff.removed or diff.changed)
    assert str(diff) == "the rules have another order"


def test_the_same_selection_twice():
    diff = policy(REST).diff(policy(REST, LOW_REST))
    assert diff.added == (LOW_REST,)
    assert not (diff.changed or diff.reordered)


def test_other_may_be_a_preset():
    assert not policies.get("w4a8").diff("w4a8")
    with pytest.raises(ValueError, match="of type int"):
        policies.get("w4a8").diff(4)
