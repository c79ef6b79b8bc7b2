"""What differs between two policies."""

import dataclasses

from keras_saq.policy.rule import Rule


@dataclasses.dataclass(frozen=True)
class PolicyDiff:
    """What has to be done to one policy to get another.

    Rules are recognised by what they select: path, layer type and predicate.
    It is false where the policies are the same, and prints as text.

    Attributes:
        fields: dict from a field's name to `(before, after)`.
        added: rules of the second policy only.
        removed: rules of the first policy only.
        changed: pairs `(before, after)` of rules that select the same layers
            and say something else of them.
        reordered: whether the rules in both have another order, which can
            change who wins.

    Example:

    >>> from keras_saq.policy import get
    >>> print(get("w4a8").diff(get("w2a8")))
    ~ Rule(weight_bits=4, activation_bits=8) -> Rule(weight_bits=2,
      activation_bits=8)
    """

    fields: dict
    added: tuple[Rule, ...]
    removed: tuple[Rule, ...]
    changed: tuple[tuple[Rule, Rule], ...]
    reordered: bool

    def __bool__(self):
        return bool(
            self.fields
            or self.added
            or self.removed
            or self.changed
            or self.reordered
        )

    def __str__(self):
        lines = [
            f"{name}: {before!r} -> {after!r}"
            for name, (before, after) in self.fields.items()
        ]
        lines += [f"- {rule}" for rule in self.removed]
        lines += [f"+ {rule}" for rule in self.added]
        lines += [f"~ {before} -> {after}" for before, after in self.changed]
        if self.reordered:
            lines.append("the rules have another order")
        return "\n".join(lines) or "no difference"


def diff(before, after):
    """The `PolicyDiff` from one `QuantizePolicy` to another."""
    fields = {}
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.compare and field.name != "rules" and old != new:
            fields[field.name] = (old, new)
    old, new = _by_selection(before.rules), _by_selection(after.rules)
    both = [key for key in old if key in new]
    return PolicyDiff(
        fields=fields,
        added=tuple(rule for key, rule in new.items() if key not in old),
        removed=tuple(rule for key, rule in old.items() if key not in new),
        changed=tuple(
            (old[key], new[key]) for key in both if old[key] != new[key]
        ),
        reordered=both != [key for key in new if key in old],
    )


def _by_selection(rules):
    """Dict from what a rule selects, and the how-manieth, to the rule."""
    found = {}
    for rule in rules:
        selection, count = (rule.path, rule.layer_type, rule.predicate), 0
        while (selection, count) in found:
            count += 1
        found[selection, count] = rule
    return found
