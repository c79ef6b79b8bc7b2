"""The integer program against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from keras_saq.search import solver
from keras_saq.search.budget import Limit
from keras_saq.search.cost_models import CostModel
from keras_saq.search.cost_models import Row
from keras_saq.search.space import Group


@st.composite
def problems(draw):
    """Groups, scores, and up to two costs, one with several rows."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = [
        Group("weights", tuple(range(2, 2 + n)), (f"layer{i}",))
        for i, n in enumerate(sizes)
    ]
    scores = [rng.integers(-9, 9, n).astype(float) for n in sizes]
    costs = []
    for name, num_rows in (("bops", 1), ("peak", 2)):
        rows = []
        for _ in range(num_rows):
            row = Row(constant=float(rng.integers(0, 50)))
            for g, n in enumerate(sizes):
                row.linear[g] = rng.integers(0, 1000, n).astype(float)
            for g in range(len(sizes) - 1):
                shape = sizes[g], sizes[g + 1]
                row.pairs[g, g + 1] = rng.integers(0, 5000, shape).astype(float)
            rows.append(row)
        costs.append(CostModel(name, "units", rows))
    values = [
        [c.value(a) for a in itertools.product(*map(range, sizes))]
        for c in costs
    ]
    share = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    # Often exactly the cost of some assignment: a budget without slack.
    limits = [
        Limit(c, float(np.quantile(v, share, method="lower")) or 1.0)
        for c, v in zip(costs, values)
    ]
    return groups, scores, limits


def brute_force(groups, scores, limits):
    """Largest score, and whether there is a choice at all."""
    best = None
    for chosen in itertools.product(*(range(len(g.bits)) for g in groups)):
        if all(e.cost.value(chosen) <= e.limit for e in limits):
            score = sum(s[i] for s, i in zip(scores, chosen))
            best = score if best is None else max(best, score)
    return best


@settings(max_examples=60, deadline=None)
@given(problems())
def test_equals_brute_force(problem):
    groups, scores, limits = problem
    best = brute_force(groups, scores, limits)
    if best is None:
        with pytest.raises(solver.InfeasibleBudget, match="reachable"):
            solver.solve(groups, scores, limits)
        return
    found = solver.solve(groups, scores, limits)
    assert all(e.cost.value(found) <= e.limit for e in limits)
    assert sum(s[i] for s, i in zip(scores, found)) == best


@settings(max_examples=30, deadline=None)
@given(problems())
def test_the_range_that_is_reported_is_the_range(problem):
    groups, _, limits = problem
    for limit in limits:
        values = [
            limit.cost.value(chosen)
            for chosen in itertools.product(
                *(range(len(g.bits)) for g in groups)
            )
        ]
        low, high = solver.reachable(groups, limit.cost)
        assert low == min(values)
        if len(limit.cost.rows) == 1:
            assert high == max(values)


@settings(max_examples=30, deadline=None)
@given(problems())
def test_expected_cost_of_certain_choices_is_the_cost(problem):
    groups, _, limits = problem
    rng = np.random.default_rng(0)
    chosen = [int(rng.integers(len(g.bits))) for g in groups]
    certain = [
        np.eye(len(g.bits), dtype="float32")[i] for g, i in zip(groups, chosen)
    ]
    for limit in limits:
        value = float(limit.cost.expected(certain))
        assert value == pytest.approx(limit.cost.value(chosen), rel=1e-5)


def test_a_share_of_the_budget_is_used_where_one_can():
    groups = [Group("weights", (2, 4), (name,)) for name in "ab"]
    row = Row(linear={0: np.array([2.0, 4.0]), 1: np.array([2.0, 4.0])})
    limit = Limit(CostModel("bops", "units", [row]), 6.5)
    scores = [np.array([1.0, 0.0]), np.array([1.0, 0.5])]
    assert solver.solve(groups, scores, [limit]).tolist() == [0, 0]
    assert solver.solve(groups, scores, [limit], 0.9).tolist() == [0, 1]
    assert solver.solve(groups, scores, [limit], 0.99).tolist() == [0, 0]
