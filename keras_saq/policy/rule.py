"""One rule of a policy: which layers it means, and what becomes of them."""

import collections.abc
import dataclasses

import keras

from keras_saq.policy import specs
from keras_saq.policy.config import METHODS
from keras_saq.policy.config import is_config
from keras_saq.policy.patterns import check_pattern
from keras_saq.policy.patterns import full_match
from keras_saq.quantizers import check_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of the layers that match. The first matching rule wins.

    A rule means the layers that satisfy its `path`, its `layer_type` and its
    `predicate`, all three. It then says one of three things: a number of
    bits, a `config`, or `keep_float=True`.

    Attributes:
        weight_bits: bits of the layer's weights, 2 to 8.
        activation_bits: bits of the tensor that the layer reads, 2 to 8;
            `None`: only the weights are quantized.
        path: regular expression, matched against the *whole* layer path, as
            `re.fullmatch` does: `"head"` means the layer `head`, `"head/.*"`
            all that is in it, `".*/query"` every `query` at any depth. The
            time it takes is bounded: see `keras_saq.policy.patterns`.
        layer_type: name of the layer's class or of one that it is derived
            from, or such a class; `None` for every layer. A class that is
            registered with Keras can be told from others of the same name by
            its registered name, `"package>Name"`.
        predicate: function of path and layer that says whether the layer is
            meant; asked last. Code is no data: such a rule cannot be written
            as JSON.
        config: `QuantizeConfig` that names the weights and quantizers itself,
            for custom layers. It stands in place of the bits.
        weight_quantizer: kind of the weights' quantizer: a name such as
            `"lsq"`, a quantizer, or a serialised one; `None`: the policy's.
        activation_quantizer: the same for activations.
        keep_float: leaves the layers in float.

    Raises:
        ValueError: if the rule says nothing, or two things at once, or a
            number of bits or the regular expression is wrong.

    Example:

    >>> import keras
    >>> from keras_saq.policy import Rule
    >>> rule = Rule(layer_type=keras.layers.Dense, weight_bits=4)
    >>> rule.matches("logits", keras.layers.Dense(10))
    True
    >>> large = Rule(layer_type="Dense", weight_bits=2,
    ...              predicate=lambda path, layer: layer.units > 99)
    >>> large.matches("logits", keras.layers.Dense(10))
    False
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    path: str = ".*"
    layer_type: str | type | None = None
    predicate: collections.abc.Callable | None = None
    config: object | None = None
    weight_quantizer: str | dict | None = None
    activation_quantizer: str | dict | None = None
    keep_float: bool = False

    def __post_init__(self):
        self._check_selection()
        self._check_outcome()
        for field in ("weight_bits", "activation_bits"):
            if getattr(self, field) is not None:
                self._set(field, check_bits(getattr(self, field), field))
        for field in ("weight_quantizer", "activation_quantizer"):
            if getattr(self, field) is not None:
                self._set(field, specs.normalize(getattr(self, field), field))

    def _set(self, field, value):
        object.__setattr__(self, field, value)

    def _check_selection(self):
        try:
            check_pattern(self.path)
        except ValueError as error:
            raise ValueError(
                "`path` of a rule must be a regular expression. "
                f"Received: path={_shortened(self.path)} ({error})"
            ) from None
        if isinstance(self.layer_type, type):
            name = keras.saving.get_registered_name(self.layer_type)
            self._set("layer_type", name)
        elif not isinstance(self.layer_type, (str, type(None))):
            raise ValueError(
                "`layer_type` of a rule must be a layer class or its name. "
                f"Received: layer_type={self.layer_type!r} of type "
                f"{type(self.layer_type).__name__}"
            )
        if self.predicate is not None and not callable(self.predicate):
            raise ValueError(
                "`predicate` of a rule must be a function such as "
                "`lambda path, layer: ...`. "
                f"Received: predicate={self.predicate!r}"
            )

    def _check_outcome(self):
        has_bits = (self.weight_bits, self.activation_bits) != (None, None)
        said = [
            name
            for name, value in (
                ("weight_bits", has_bits),
                ("config", self.config is not None),
                ("keep_float", self.keep_float),
            )
            if value
        ]
        if len(said) != 1:
            raise ValueError(
                "A rule says one thing: `weight_bits=` (with or without "
                "`activation_bits=`), `config=` or `keep_float=True`. "
                f"Received: {' and '.join(said) or 'none of them'}, in {self}"
            )
        if has_bits and self.weight_bits is None:
            raise ValueError(
                "A rule with `activation_bits` needs `weight_bits` too: the "
                "input of a layer is quantized for the sake of its integer "
                f"kernel. Received: {self}"
            )
        if self.config is not None and not is_config(self.config):
            raise ValueError(
                "`config` of a rule must be a `keras_saq.QuantizeConfig`, or "
                f"an object with the methods {', '.join(METHODS)}. "
                f"Received: config={self.config!r}"
            )

    def matches(self, path, layer):
        """Whether a layer is meant.

        Args:
            path: path of the layer in its model.
            layer: the layer. The name of its class will do, for a rule
                without `predicate`; base classes are then not known.
        """
        if self.layer_type is not None and not self._is_of_type(layer):
            return False
        if not full_match(self.path, path):
            return False
        if self.predicate is None:
            return True
        if isinstance(layer, str):
            raise ValueError(
                f"{self} has a predicate, which needs the layer itself. "
                f"Received: path={path!r}, layer={layer!r}, a class name"
            )
        try:
            return bool(self.predicate(path, layer))
        except Exception as error:  # whatever somebody's code may raise
            raise ValueError(
                f"The predicate of {self} failed on layer '{path}' of type "
                f"{type(layer).__name__}: {type(error).__name__}: {error}. It "
                "is asked about layers of every type; a `layer_type` beside "
                "it is looked at first."
            ) from error

    def _is_of_type(self, layer):
        if isinstance(layer, str):
            return self.layer_type == layer
        return any(
            self.layer_type
            in (base.__name__, keras.saving.get_registered_name(base))
            for base in type(layer).__mro__
        )

    def __str__(self):
        return f"Rule({_listed(changed_fields(self))})"

    __repr__ = __str__


def changed_fields(rule):
    """Dict of the fields of a rule that are not what they are by default."""
    return {
        field.name: getattr(rule, field.name)
        for field in dataclasses.fields(rule)
        if getattr(rule, field.name) != field.default
    }


def _shortened(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _listed(fields):
    return ", ".join(f"{k}={_short(v)}" for k, v in fields.items())


def _short(value):
    if isinstance(value, dict):
        return f"<{value['class_name']}>"
    return getattr(value, "__qualname__", repr(value))
