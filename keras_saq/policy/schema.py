"""Policies as JSON text, with a version.

| version | written by      | what is new                                     |
|---------|-----------------|-------------------------------------------------|
| 1       | keras_saq 0.1   | rules of bits, path and layer type              |
| 2       | this release    | rules without `activation_bits`, with a config, |
|         |                 | a kind of quantizer, or `keep_float`            |

Only what differs from a rule's defaults is written.
"""

import json

import keras

from keras_saq.policy.rule import Rule
from keras_saq.policy.rule import changed_fields
from keras_saq.untrusted import parse_json

SCHEMA_VERSION = 2
_READABLE = (1, 2)
_VERSION_1_RULE = {"weight_bits", "activation_bits"}


def dumps(fields):
    """JSON text of a policy's fields, `rules` among them."""
    rules = [_rule_as_data(i, rule) for i, rule in enumerate(fields["rules"])]
    data = {"schema_version": SCHEMA_VERSION, **fields, "rules": rules}
    return json.dumps(data, indent=2) + "\n"


def loads(text):
    """The fields of a policy, from JSON text of any readable version."""
    try:
        data = parse_json(text)
        version = data.pop("schema_version")
        if version not in _READABLE:
            raise ValueError(
                f"schema_version is {version}, and this release of "
                f"keras_saq reads {' and '.join(map(str, _READABLE))}"
            )
        for rule in data["rules"]:
            missing = _VERSION_1_RULE - rule.keys()
            if version == 1 and missing:
                raise ValueError(f"a rule has no {sorted(missing)}")
        data["rules"] = tuple(_rule_from_data(rule) for rule in data["rules"])
        return data
    except Exception as error:  # whatever a class that is named there raises
        raise not_a_policy(error) from error


def not_a_policy(error):
    """The error about text that is no policy."""
    what = str(error)
    if not isinstance(error, ValueError):
        what = f"{type(error).__name__}: {error}"
    return ValueError(
        f"This is not a policy of keras_saq: {what}. Expected JSON as "
        "written by `QuantizePolicy.save`."
    )


def _rule_as_data(index, rule):
    if rule.predicate is not None:
        raise ValueError(
            f"Rule {index} of the policy cannot be written as JSON, because "
            f"its predicate is Python code: {rule}. Select the layers by "
            "`path` or `layer_type`, or keep the policy in code."
        )
    data = changed_fields(rule)
    if rule.config is not None:
        data["config"] = keras.saving.serialize_keras_object(rule.config)
    return data


def _rule_from_data(data):
    data = dict(data)
    if data.get("config") is not None:
        data["config"] = keras.saving.deserialize_keras_object(data["config"])
    return Rule(**data)
