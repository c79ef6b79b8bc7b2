"""Budgets: absolute, relative, several, impossible."""

import pytest

from keras_saq.search import Budget
from keras_saq.search import SearchSpace
from keras_saq.search import cost_models
from keras_saq.search import layer_costs
from tests.networks import NETWORKS


@pytest.fixture(name="space")
def make_space():
    return SearchSpace(NETWORKS["residual"](), (2, 3, 4), target="paper")


def test_relative_budgets(space):
    budget = Budget(bops="0.25x float", bytes="w3a3", average_bits="1.5x w2a2")
    limits = {e.cost.name: e.limit for e in budget.resolve(space)}
    floats = sum(row.bops for row in layer_costs(space.model))
    assert limits["bops"] == 0.25 * floats
    bits = [group.bits.index(3) for group in space.groups]
    assert limits["bytes"] == cost_models.file_bytes(space).value(bits)
    bits = [0] * len(space.groups)
    average = cost_models.average_bits(space).value(bits)
    assert limits["average_bits"] == pytest.approx(1.5 * average)


def test_a_preset_is_counted_without_the_limits_of_kernels():
    space = SearchSpace(NETWORKS["residual"](), (2, 4), target="litert")
    (limit,) = Budget(bops="w4a4").resolve(space)
    highest = limit.cost.value([len(g.bits) - 1 for g in space.groups])
    assert limit.limit < highest  # there, depthwise convolutions have 8 bits


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"bops": "w3"},
        {"bops": "half of float"},
        {"bops": 0},
        {"bytes": float("inf")},
        {"average_bits": "..x float"},
        {"latency": 0.1},
    ],
)
def test_what_is_no_budget(wrong):
    with pytest.raises(ValueError, match="[Bb]udget|latency_table"):
        Budget(**wrong)
