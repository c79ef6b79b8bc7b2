"""`"random"` and `"uniform"`: what a search has to be better than."""

import numpy as np

from keras_saq.search import solver


def random(search):
    """Scores at random: with the budget, a random policy that uses it."""
    rng = np.random.default_rng(search.seed)
    return [rng.random(len(group.bits)) for group in search.space.groups]


def uniform_assignment(groups, limits):
    """The most bits that all groups can have alike within the limits.

    A group without that candidate has its next smaller one.

    Args:
        groups: list of `Group`.
        limits: list of `Limit`.

    Returns:
        Array with the index of a candidate for each group.
    """
    for bits in sorted({b for g in groups for b in g.bits}, reverse=True):
        assignment = np.array(
            [
                max((i for i, b in enumerate(g.bits) if b <= bits), default=0)
                for g in groups
            ],
            dtype=int,
        )
        if all(each.cost.value(assignment) <= each.limit for each in limits):
            return assignment
    # With different bits it may be possible, or the error says what is.
    return solver.solve(
        groups, [np.arange(len(g.bits)) for g in groups], limits
    )
