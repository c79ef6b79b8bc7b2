"""Which layer gets which bits: a policy is data."""

import dataclasses
import os
import pathlib
import re

from keras_saq.policy import diff as diffs
from keras_saq.policy import schema
from keras_saq.policy import specs
from keras_saq.policy.paths import layer_paths
from keras_saq.policy.rule import Rule
from keras_saq.quantizers import check_bits
from keras_saq.untrusted import MISFITS
from keras_saq.whole_file import replaced

SCHEMES = ("litert", "paper")
# The preset strings: bits of the weights, bits of the activations.
_PRESET = re.compile(r"w(\d+)(?:a(\d+))?")
PRESET_EXAMPLES = ("w8a8", "w4a8", "w4a4", "w3a3", "w2a2", "w8", "w4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizePolicy:
    """What becomes of every layer of a model.

    Attributes:
        rules: `Rule`s in order of precedence. A layer that no rule matches
            stays in float.
        first_last_bits: bits of the weights and inputs of the layers next to
            the model's inputs and outputs, where a rule gives them bits (the
            inputs: where it gives those bits too); `None` leaves them to the
            rules.
        stream_bits: bits of tensors that are read by something else than a
            weighted layer: sums, concatenations, averages, model outputs.
        scheme: `"litert"`: every tensor that an integer kernel reads or
            writes has a scale, so that the whole file is integer. `"paper"`:
            only the inputs of weighted layers, the way published tables are
            made; such a model trains and evaluates but cannot be exported.
        weight_quantizer: kind of the weights' quantizers: a name such as
            `"lsq"`, a quantizer, or a serialised one. A rule can say another.
        activation_quantizer: the same for activations.
        provenance: where the policy comes from: a dict of plain data that a
            search writes, or `None`. It is saved with the policy, and is no
            part of what makes two policies equal.

    Example:

    >>> from keras_saq.policy import QuantizePolicy, Rule
    >>> policy = QuantizePolicy(rules=(
    ...     Rule(path="head", weight_bits=8, activation_bits=8),
    ...     Rule(layer_type="Embedding", weight_bits=4),
    ...     Rule(path="gate/.*", keep_float=True),
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
    weight_quantizer: str | dict = "lsq"
    activation_quantizer: str | dict = "lsq"
    provenance: dict | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise ValueError(
                    "`rules` of a policy must be `keras_saq.Rule`s. "
                    f"Received: {rule!r} of type {type(rule).__name__}"
                )
        if self.first_last_bits is not None:
            check_bits(self.first_last_bits, "first_last_bits")
        check_bits(self.stream_bits, "stream_bits")
        if self.scheme not in SCHEMES:
            raise ValueError(
                f"`scheme` must be one of {list(SCHEMES)}. "
                f"Received: scheme={self.scheme!r}"
            )
        for field in ("weight_quantizer", "activation_quantizer"):
            spec = specs.normalize(getattr(self, field), field)
            object.__setattr__(self, field, spec)

    @classmethod
    def preset(cls, name, **kwargs):
        """The policy that a preset string stands for.

        | preset         | weights | inputs of layers | stream | first, last |
        |----------------|---------|------------------|--------|-------------|
        | `"w8a8"`       | 8       | 8                | 8      | 8           |
        | `"w4a8"`       | 4       | 8                | 8      | 8           |
        | `"w4a4"`       | 4       | 4                | 8      | 8           |
        | `"w3a3"`       | 3       | 3                | 8      | 8           |
        | `"w2a2"`       | 2       | 2                | 8      | 8           |
        | `"w<b>a<c>"`   | b       | c                | 8      | 8           |
        | `"w8"`, `"w4"` | 8, 4    | float            | float  | 8 (weights) |
        | `"w<b>"`       | b       | float            | float  | 8 (weights) |

        The stream are the tensors that something else than a weighted layer
        reads, above all the sums of residual networks. They keep 8 bits under
        every preset: each block adds its rounding error to them, and a layer
        that wants fewer bits requantizes what it reads. `stream_bits` and
        `first_last_bits` change the last two columns.

        Args:
            name: the string.
            **kwargs: fields of the policy, `first_last_bits` for example.

        Example:

        >>> from keras_saq.policy import QuantizePolicy
        >>> policy = QuantizePolicy.preset("w4a4", first_last_bits=None)
        >>> policy.rules
        (Rule(weight_bits=4, activation_bits=4),)
        >>> QuantizePolicy.preset("w4").weight_only
        True
        """
        match = _PRESET.fullmatch(name)
        if match is None:
            raise ValueError(
                "Unknown preset. Expected 'w<bits>a<bits>' or, for weights "
                f"only, 'w<bits>', such as {', '.join(PRESET_EXAMPLES)}, or "
                "the path of a policy file that ends in '.json'. "
                f"Received: {name!r}"
            )
        weight_bits, activation_bits = match.groups()
        rule = Rule(
            weight_bits=int(weight_bits),
            activation_bits=activation_bits and int(activation_bits),
        )
        return cls(rules=(rule,), **kwargs)

    @property
    def weight_only(self):
        """Whether no rule quantizes an activation."""
        return all(
            rule.keep_float or (rule.weight_bits and not rule.activation_bits)
            for rule in self.rules
        )

    def rule_for(self, path, layer):
        """The first rule that matches a layer, or `None`.

        Args:
            path: path of the layer, see `layer_paths`.
            layer: the layer, or the name of its class; see `Rule.matches`.
        """
        for rule in self.rules:
            if rule.matches(path, layer):
                return rule
        return None

    def unused_rules(self, model):
        """List of the rules that decide nothing in a model.

        Those that match no layer at any depth, and those that only match
        layers which an earlier rule has taken.

        Example:

        >>> import keras
        >>> from keras_saq.policy import QuantizePolicy, Rule
        >>> policy = QuantizePolicy(rules=(
        ...     Rule(path="haed", weight_bits=8),
        ...     Rule(weight_bits=4),
        ... ))
        >>> model = keras.Sequential(
        ...     [keras.Input((4,)), keras.layers.Dense(3, name="head")])
        >>> policy.unused_rules(model)
        [Rule(weight_bits=8, path='haed')]
        """
        winners = {
            id(self.rule_for(path, layer)) for path, layer in layer_paths(model)
        }
        return [rule for rule in self.rules if id(rule) not in winners]

    def diff(self, other):
        """What has changed from this policy to another, a `PolicyDiff`.

        Example:

        >>> from keras_saq.policy import QuantizePolicy
        >>> before = QuantizePolicy.preset("w4a8")
        >>> after = QuantizePolicy.preset("w2a8", first_last_bits=None)
        >>> print(before.diff(after))
        first_last_bits: 8 -> None
        ~ Rule(weight_bits=4, activation_bits=8) ->
          Rule(weight_bits=2, activation_bits=8)
        """
        return diffs.diff(self, get(other))

    def weight_quantizer_of(self, rule):
        """Kind of the weights' quantizers under a rule of this policy."""
        return rule.weight_quantizer or self.weight_quantizer

    def activation_quantizer_of(self, rule):
        """Kind of the activations' quantizers under a rule of this policy."""
        return rule.activation_quantizer or self.activation_quantizer

    def to_json(self):
        """The policy as JSON text.

        Raises:
            ValueError: if a rule has a predicate, which is code.
        """
        fields = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self)
        }
        if self.provenance is None:
            del fields["provenance"]
        return schema.dumps(fields)

    @classmethod
    def from_json(cls, text):
        """The policy that `to_json` wrote, in this or an earlier release."""
        fields = schema.loads(text)
        try:
            return cls(**fields)
        except MISFITS as error:
            raise schema.not_a_policy(error) from error

    def save(self, path):
        """Writes the policy as JSON."""
        text = self.to_json()
        with replaced(path) as file:
            file.write(text.encode())

    @classmethod
    def load(cls, path):
        """Reads a policy that `save` wrote."""
        try:
            content = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise ValueError(
                f"The policy file cannot be read: {error}"
            ) from error
        return cls.from_json(content)


def get(policy):
    """Resolves a preset name, a path of a `.json` file, or a policy.

    Args:
        policy: such a name, a path, or a `QuantizePolicy`.

    Returns:
        A `QuantizePolicy`.

    Raises:
        ValueError: if it is none of these, or if the file is no policy.

    Example:

    >>> from keras_saq import policy
    >>> policy.get("w4a8").rules
    (Rule(weight_bits=4, activation_bits=8),)
    """
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
