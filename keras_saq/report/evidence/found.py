"""What a search found: bits, costs, and its front."""

from keras_saq.policy.policy import get
from keras_saq.report.search_plots import pareto

_FIELDS = {"bits", "cost", "limits", "method", "seconds"}


def describe(policy, points, layers):
    """Dict: where a policy comes from, and the front it is on.

    Args:
        policy: a policy that a search made, or the path of its `.json`; or
            `None`.
        points: list of `keras_saq.search.FrontPoint`, or `None`.
        layers: what the model has, a `LayerCost` as dict for each layer.

    Raises:
        ValueError: if the policy was not found by a search.
    """
    found = {}
    if policy is not None:
        provenance = get(policy).provenance
        if not provenance or not _FIELDS <= provenance.keys():
            name = f"'{policy}'" if isinstance(policy, str) else "The policy"
            raise ValueError(
                f"{name} was not found by a search: it says nothing of where "
                "it comes from. Give a policy that `keras_saq.search_policy` "
                "or `keras-saq search` made, or none."
            )
        found["provenance"] = provenance
        found["other_in_model"] = _others(provenance["bits"], layers)
    if points:
        # The costs that all points have in common.
        names = [n for n in points[0].cost if all(n in p.cost for p in points)]
        found["front"] = {
            "points": [
                {"cost": dict(p.cost), "accuracy": float(p.accuracy)}
                for p in points
            ],
            "best": {
                name: pareto(
                    [p.cost[name] for p in points],
                    [p.accuracy for p in points],
                )
                for name in names
            },
        }
    return found


def _others(bits, layers):
    """What the model has with other bits than the search chose."""
    has = {f"{row['path']} weights": row["weight_bits"] for row in layers}
    return [
        name
        for name, chosen in bits.items()
        if name.endswith(" weights") and has.get(name) != chosen
    ]
