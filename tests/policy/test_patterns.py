"""Expressions of rules: what Python says of them, and never for long."""

import re
import time

import keras
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import keras_saq
from keras_saq.policy import patterns
from keras_saq.policy.patterns import check_pattern
from keras_saq.policy.patterns import full_match

_LEAVES = st.sampled_from(
    ["a", "b", "/", "[ab]", "[^a]", ".", r"\w", "^", "$", r"\b", "(?=a)"]
    + ["(?!b)", "(?<=a)", "(?<!b/)", "(?i:A)"]
)
_TIMES = st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}?"])
_PATTERNS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, _TIMES).map(lambda p: f"({p[0]}){p[1]}"),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(pattern=_PATTERNS, text=st.text("ab/\n", max_size=6))
def test_both_ways_say_what_python_says(pattern, text):
    expected = re.fullmatch(pattern, text) is not None
    assert full_match(pattern, text) is expected
    assert patterns._compiled(pattern).matcher.matches(text) is expected


# Each takes `re` hours on the text beside it.
SLOW = {
    "(a+)+b": 40 * "a",
    "(a|a)*b": 40 * "a",
    "(a|ab|b)*c": 20 * "ab",
    "(?:a?){30}a{30}b": 30 * "a",
    ".*.*.*.*.*.*.*x": 400 * "a",
    "(?=(a+)+b).*": 40 * "a",
    "((?=.*(?=.*(?=.*z))).)*": 100 * "a",
    r"(\w+/?)*\d": 40 * "a",
    "(?:){4000000000}": "",
}


@pytest.mark.parametrize("pattern", SLOW)
def test_no_expression_takes_long(pattern):
    start = time.process_time()
    try:
        assert full_match(pattern, SLOW[pattern]) is False
    except ValueError as error:
        assert "places" in str(error)
    assert time.process_time() - start < 10


def test_what_remembers_is_allowed_where_it_is_quick():
    assert full_match(r"(\w+)_\1", "abc_abc")
    assert full_match("(?>a*)b", "aab")
    with pytest.raises(ValueError, match="back-reference"):
        check_pattern(r"((a*)\2)+")
    with pytest.raises(ValueError, match="for a text of 5000"):
        full_match(r"(\w*)_(.*)_\1", 5000 * "a")


@pytest.mark.parametrize(
    "pattern", ["[", "a{9,1}", "(", 5000 * "(" + 5000 * ")", "((a{99}){99})+"]
)
def test_what_is_no_expression_is_an_error(pattern):
    with pytest.raises(ValueError, match="must be a regular expression"):
        keras_saq.Rule(path=pattern, weight_bits=4)


def test_long_names_have_rules():
    """As a search writes them: the name itself, with escapes."""
    name = "block." * 2000
    assert full_match(re.escape(name), name)


def test_a_model_is_quantized_with_such_a_policy():
    """The kind: a policy from elsewhere that would hang the program."""
    inputs = keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="a" * 40)(inputs))
    policy = keras_saq.QuantizePolicy(
        rules=(
            keras_saq.Rule(path="(a+)+b", weight_bits=4),
            keras_saq.Rule(weight_bits=8, activation_bits=8),
        )
    )
    with pytest.warns(UserWarning, match="decide nothing in the model"):
        q = keras_saq.quantize_model(model, policy)
    assert q.layers[-1].kernel_quantizer.num_bits == 8
