"""Which layer gets which bits: a policy is data."""

import dataclasses
import json
import os
import pathlib
import re

from keras_saq.quantizers import check_bits

SCHEMA_VERSION = 1
SCHEMES = ("litert", "paper")
# The preset strings: bits of the weights, bits of the activations.
_PRESET = re.compile(r"w(\d+)a(\d+)")
PRESET_EXAMPLES = ("w8a8", "w4a8", "w4a4", "w3a3", "w2a4", "w2a2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """Bits for the layers that match. The first matching rule wins.

    Attributes:
        weight_bits: bits of the layer's weights, 2 to 8.
        activation_bits: bits of the tensor that the layer reads, 2 to 8.
        path: regular expression, matched against the whole layer path.
        layer_type: name of the layer's class, or `None` for every class.
    """

    weight_bits: int
    activation_bits: int
    path: str = ".*"
    layer_type: str | None = None

    def __post_init__(self):
        check_bits(self.weight_bits, "weight_bits")
        check_bits(self.activation_bits, "activation_bits")
        try:
            re.compile(self.path)
        except re.error as error:
            raise ValueError(
                "`path` of a rule must be a regular expression. "
                f"Received: path={self.path!r} ({error})"
            ) from None

    def matches(self, path, layer_type):
        """Whether a layer with this path and class name is meant."""
        if self.layer_type not in (None, layer_type):
            return False
        return re.fullmatch(self.path, path) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizePolicy:
    """Bits of every layer of a model.

    Attributes:
        rules: `Rule`s in order of precedence. A layer that no rule matches
            stays in float.
        first_last_bits: bits of the weights and inputs of the layers next to
            the model's inputs and outputs; `None` leaves them to the rules.
        stream_bits: bits of tensors that are read by something else than a
            weighted layer: sums, concatenations, averages, model outputs.
        scheme: `"litert"`: every tensor that an integer kernel reads or
            writes has a scale, so that the whole file is integer. `"paper"`:
            only the inputs of weighted layers, the way published tables are
            made; such a model trains and evaluates but cannot be exported.

    Example:

    >>> from keras_saq.policy import QuantizePolicy, Rule
    >>> policy = QuantizePolicy(rules=(
    ...     Rule(path="head", weight_bits=8, activation_bits=8),
    ...     Rule(weight_bits=4, activation_bits=8),
    ... ))
    >>> policy.rule_for("conv", "Conv2D").weight_bits
    4
    >>> QuantizePolicy.from_json(policy.to_json()) == policy
    True
    """

    rules: tuple[Rule, ...]
    first_last_bits: int | None = 8
    stream_bits: int = 8
    scheme: str = "litert"

    def __post_init__(self):
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.first_last_bits is not None:
            check_bits(self.first_last_bits, "first_last_bits")
        check_bits(self.stream_bits, "stream_bits")
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"`scheme` must be one of {list(SCHEMES)}. "
                f"Received: scheme={self.scheme!r}"
            )

    @classmethod
    def preset(cls, name, **kwargs):
        """The policy that a preset string such as `"w4a8"` stands for."""
        match = _PRESET.fullmatch(name)
        if match is None:
            raise ValueError(
                f"Unknown preset. Expected 'w<bits>a<bits>', such as "
                f"{', '.join(PRESET_EXAMPLES)}, or the path of a policy file "
                f"that ends in '.json'. Received: {name!r}"
            )
        weight_bits, activation_bits = map(int, match.groups())
        rule = Rule(weight_bits=weight_bits, activation_bits=activation_bits)
        return cls(rules=(rule,), **kwargs)

    def rule_for(self, path, layer_type):
        """The first rule that matches a layer, or `None`."""
        for rule in self.rules:
            if rule.matches(path, layer_type):
                return rule
        return None

    def to_json(self):
        """The policy as JSON text."""
        data = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return json.dumps(data, indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """The policy that `to_json` wrote."""
        try:
            data = json.loads(text)
            version = data.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"schema_version is {version}, and this release of "
                    f"keras_saq reads {SCHEMA_VERSION}"
                )
            data["rules"] = tuple(Rule(**rule) for rule in data["rules"])
            return cls(**data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"This is not a policy of keras_saq: {error}. Expected JSON "
                "as written by `QuantizePolicy.save`."
            ) from error

    def save(self, path):
        """Writes the policy as JSON."""
        pathlib.Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path):
        """Reads a policy that `save` wrote."""
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"The policy file cannot be read: {error}"
            ) from error
        return cls.from_json(text)


def get(policy):
    """Resolves a preset name, a path of a `.json` file, or a policy."""
    if isinstance(policy, QuantizePolicy):
        return policy
    if isinstance(policy, (str, os.PathLike)):
        if str(policy).endswith(".json"):
            return QuantizePolicy.load(policy)
        return QuantizePolicy.preset(str(policy))
    raise ValueError(
        "`policy` must be a preset such as 'w4a8', the path of a policy "
        f"file, or a `QuantizePolicy`. Received: {policy!r} "
        f"of type {type(policy).__name__}"
    )
