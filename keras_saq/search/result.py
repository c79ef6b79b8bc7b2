"""What a search returns, where it comes from, and that it is right."""

import dataclasses

from keras_saq.models.plan import Plan
from keras_saq.policy import QuantizePolicy
from keras_saq.search import cost_models
from keras_saq.search.reads import read_quantizer


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """One policy of several.

    Attributes:
        policy: the `QuantizePolicy`.
        cost: dict of its costs.
        accuracy: of the supernet with its bits, 0 to 1, on the data that
            `PolicySearch.front` measured it on.
    """

    policy: QuantizePolicy
    cost: dict
    accuracy: float


def provenance(search, budget, assignment):
    """Dict of plain data: how a policy was found, and what it costs."""
    space = search.space
    bits = space.bits(assignment)
    return {
        "method": search.method,
        "seed": search.seed,
        "target": space.target,
        "rho": search.rho,
        "budget": {
            name: _plain(value) for name, value in budget.limits.items()
        },
        "limits": {
            limit.cost.name: float(limit.limit)
            for limit in budget.resolve(space)
        },
        "cost": costs(space, assignment, budget),
        "gate": _plain_verdict(search.verdict(budget)),
        "proxy": search.proxy.describe(),
        "seconds": round(search.seconds, 2),
        "epochs": search.epochs
        if search.method in ("seam", "ce", "scale")
        else 0,
        "bits": {g.name: b for g, b in zip(space.groups, bits)},
        "scores": {
            group.name: {
                str(b): float(f"{score:.6g}")
                for b, score in zip(group.bits, scores)
            }
            for group, scores in zip(space.groups, search.scores)
        },
    }


def costs(space, assignment, budget=None):
    """Dict of all costs of an assignment."""
    models = [
        cost_models.bit_operations(space),
        cost_models.stored(space),
        cost_models.file_bytes(space),
        cost_models.average_bits(space),
        cost_models.activation_bytes(space),
    ]
    if budget is not None and budget.latency is not None:
        models.append(budget.cost_models(space)["latency"])
    return {m.name: float(m.value(assignment)) for m in models}


def verify(space, assignment, policy):
    """Raises unless the policy gives every layer the bits that were meant.

    The costs were computed from tables; here the policy is resolved on the
    model, as `quantize_model` does.
    """
    bits = space.bits(assignment)
    plan = Plan(space.model, policy)
    sites = dict(zip(map(id, space.plan.graph.sites), plan.graph.sites))
    for site in space.sites:
        config = plan.config_of(site.layer)
        if site.weights is not None:
            found = {q.num_bits for q in config.weights.values()}
            _require(site, "weights", {bits[site.weights]}, found)
        if site.inputs is not None:
            quantizer = read_quantizer(plan, sites[id(site.site)])
            found = {getattr(quantizer, "num_bits", quantizer)}
            _require(site, "input", {bits[site.inputs]}, found)


def _require(site, what, expected, found):
    if expected != found:
        raise RuntimeError(
            f"The policy gives the {what} of '{site.path}' {sorted(found)} "
            f"bits instead of {sorted(expected)}: the search space and "
            "`quantize_model` disagree about this model. This is a bug of "
            "keras_saq; please report the model."
        )


def _plain_verdict(verdict):
    return None if verdict is None else dataclasses.asdict(verdict)


def _plain(value):
    return value if isinstance(value, str) else float(value)
