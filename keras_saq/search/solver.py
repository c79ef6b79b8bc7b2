"""The bits with the best score that meet every budget: an integer program.

One binary variable per group and candidate, of which one per group is 1.
Products, as in bit operations, become variables too: those of a pair of
groups have the marginals of its two groups, which at binary points leaves one
possibility. It is solved exactly by HiGHS (`scipy.optimize.milp`).
"""

import numpy as np
from scipy import optimize
from scipy import sparse

# HiGHS's own tolerance on rows, in units of the limit.
_TOLERANCE = 1e-9
_INFEASIBLE = 2


class InfeasibleBudget(ValueError):
    """A budget that no assignment meets.

    A `ValueError`; its message has the range that can be reached.

    Example:

    >>> import keras, numpy as np
    >>> from keras_saq.search import Budget, InfeasibleBudget, search_policy
    >>> model = keras.Sequential(
    ...     [keras.Input((4,))] + [keras.layers.Dense(4) for _ in range(3)]
    ... )
    >>> proxy = np.eye(4, dtype="float32"), np.arange(4)
    >>> try:
    ...     search_policy(model, proxy, Budget(bops=1), method="random")
    ... except InfeasibleBudget as error:
    ...     print("reachable" in str(error))
    True
    """


def solve(groups, scores, limits, at_least=None):
    """The assignment with the largest sum of scores within the limits.

    Args:
        groups: list of `Group`.
        scores: list with an array for each group, one number a candidate.
        limits: list of `keras_saq.search.budget.Limit`.
        at_least: a share of the first limit that has to be used, or `None`.

    Returns:
        Array with the index of a candidate for each group.

    Raises:
        InfeasibleBudget: if there is none; the message has the range that
            can be reached.
    """
    found = _solve(groups, scores, limits, at_least)
    if found is None and at_least is not None:
        found = _solve(groups, scores, limits, None)
    if found is None:
        raise InfeasibleBudget(_why_not(groups, limits))
    return found


def reachable(groups, cost):
    """Smallest and largest value of a cost over all assignments."""
    program = _Program(groups, [cost])
    ends = []
    for sign in (1, -1):
        if len(cost.rows) == 1:
            found = program.minimize(sign * program.row(cost.rows[0]))
        elif sign == 1:
            found = program.minimize_largest(cost)
        else:
            found = [len(g.bits) - 1 for g in groups]
        ends.append(cost.value(found))
    return tuple(ends)


def _solve(groups, scores, limits, at_least):
    program = _Program(groups, [limit.cost for limit in limits])
    for limit in limits:
        for row in limit.cost.rows:
            program.limit(row, limit.limit)
    if at_least is not None:
        first = limits[0]
        program.require(first.cost.rows, at_least * first.limit)
    objective = np.zeros(program.size)
    for g, values in enumerate(scores):
        objective[program.columns(g)] = -np.asarray(values, "float64")
    found = program.minimize(objective)
    if found is None:
        return None
    # The solver works with tolerances; a budget has none.
    while any(each.cost.value(found) > each.limit for each in limits):
        program.forbid(found)
        found = program.minimize(objective)
        if found is None:
            return None
    return found


def _why_not(groups, limits):
    lines = []
    for limit in limits:
        low, high = reachable(groups, limit.cost)
        lines.append(
            f"  {limit.cost.name}: received {limit.limit:,.6g}, reachable: "
            f"{low:,.6g} to {high:,.6g} {limit.cost.unit}"
        )
    together = (
        " Each can be met alone, but not all of them together."
        if all(
            reachable(groups, limit.cost)[0] <= limit.limit for limit in limits
        )
        else ""
    )
    return (
        "No choice among the candidate bits meets the budget."
        f"{together}\n" + "\n".join(lines) + "\nRaise the budget, or give the "
        "layers candidates with fewer bits."
    )


class _Program:
    """Variables and constraints: groups first, then pairs of groups."""

    def __init__(self, groups, costs):
        self._sizes = [len(group.bits) for group in groups]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)]).astype(int)
        self._num_binary = int(self._starts[-1])
        self.size = self._num_binary
        self._pairs = {}
        for cost in costs:
            for row in cost.rows:
                for g, h in row.pairs:
                    if (g, h) not in self._pairs:
                        self._pairs[g, h] = self.size
                        self.size += self._sizes[g] * self._sizes[h]
        self._rows, self._low, self._high = [], [], []
        for g in range(len(groups)):
            row = np.zeros(self.size)
            row[self.columns(g)] = 1
            self._add(row, 1, 1)
        for (g, h), start in self._pairs.items():
            self._tie_pair(g, h, start)

    def columns(self, g):
        """Where the variables of a group are."""
        return slice(self._starts[g], self._starts[g + 1])

    def _tie_pair(self, g, h, start):
        shape = (self._sizes[g], self._sizes[h])
        index = start + np.arange(shape[0] * shape[1]).reshape(shape)
        for i in range(shape[0]):
            row = np.zeros(self.size)
            row[index[i]] = 1
            row[self._starts[g] + i] = -1
            self._add(row, 0, 0)
        for j in range(shape[1]):
            row = np.zeros(self.size)
            row[index[:, j]] = 1
            row[self._starts[h] + j] = -1
            self._add(row, 0, 0)

    def _add(self, row, low, high):
        self._rows.append(sparse.csr_array(row[None]))
        self._low.append(low)
        self._high.append(high)

    def row(self, row):
        """Coefficients of a cost's row, without its constant."""
        values = np.zeros(self.size)
        for g, vector in row.linear.items():
            values[self.columns(g)] += vector
        for pair, matrix in row.pairs.items():
            start = self._pairs[pair]
            values[start : start + matrix.size] += matrix.ravel()
        return values

    def limit(self, row, limit):
        """`row <= limit`, scaled to numbers around 1."""
        scale = max(abs(limit), 1e-30)
        high = (limit - row.constant) / scale
        self._add(self.row(row) / scale, -np.inf, high + _TOLERANCE)

    def require(self, rows, least):
        """That the (only) row is at least a number."""
        if len(rows) == 1:
            scale = max(abs(least), 1e-30)
            low = (least - rows[0].constant) / scale
            self._add(self.row(rows[0]) / scale, low, np.inf)

    def forbid(self, assignment):
        """Excludes one assignment."""
        row = np.zeros(self.size)
        row[self._starts[:-1] + assignment] = 1
        self._add(row, -np.inf, len(assignment) - 1)

    def minimize(self, objective):
        """The best assignment, or `None`."""
        if not self._num_binary:
            feasible = all(
                low <= 0 <= high for low, high in zip(self._low, self._high)
            )
            return np.zeros(0, int) if feasible else None
        return self._run(objective, self._rows, self._low, self._high)

    def minimize_largest(self, cost):
        """The assignment whose largest row is smallest."""
        rows = [
            sparse.hstack([row, sparse.csr_array((1, 1))]) for row in self._rows
        ]
        low, high = list(self._low), list(self._high)
        for row in cost.rows:
            values = np.append(self.row(row), -1.0)
            rows.append(sparse.csr_array(values[None]))
            low.append(-np.inf)
            high.append(-row.constant)
        objective = np.append(np.zeros(self.size), 1.0)
        return self._run(objective, rows, low, high)

    def _run(self, objective, rows, low, high):
        size = len(objective)
        integrality = np.zeros(size)
        integrality[: self._num_binary] = 1
        upper = np.ones(size)
        upper[self.size :] = np.inf
        norm = np.abs(objective).max() or 1.0
        result = optimize.milp(
            objective / norm,
            constraints=optimize.LinearConstraint(
                sparse.vstack(rows), low, high
            ),
            integrality=integrality,
            bounds=optimize.Bounds(0, upper),
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            if result.status == _INFEASIBLE:
                return None
            raise RuntimeError(
                f"The integer program was not solved: {result.message}"
            )
        return np.array(
            [
                int(np.argmax(result.x[start:stop]))
                for start, stop in zip(self._starts, self._starts[1:])
            ]
        )
