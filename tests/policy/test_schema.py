import json

import keras
import pytest

from keras_saq import policy as policies
from keras_saq.policy import QuantizeConfig
from keras_saq.policy import QuantizePolicy
from keras_saq.policy import Rule
from keras_saq.quantizers import LSQ

VERSION_1 = """{
  "schema_version": 1,
  "rules": [
    {"weight_bits": 8, "activation_bits": 8, "path": "head",
     "layer_type": null},
    {"weight_bits": 4, "activation_bits": 8, "path": ".*",
     "layer_type": "Conv2D"}
  ],
  "first_last_bits": null,
  "stream_bits": 6,
  "scheme": "paper"
}
"""


@keras.saving.register_keras_serializable("test_schema")
class KernelConfig(QuantizeConfig):
    def __init__(self, num_bits):
        super().__init__({"kernel": LSQ(num_bits, name="kernel_quantizer")})
        self.num_bits = num_bits

    def get_config(self):
        return {"num_bits": self.num_bits}


def every_kind_of_rule():
    return QuantizePolicy(
        rules=(
            Rule(path="a/.*", keep_float=True),
            Rule(layer_type=keras.layers.Embedding, weight_bits=4),
            Rule(
                path="b",
                config=QuantizeConfig(
                    {"kernel": LSQ(4, channel_axes=(-1,))},
                    outputs=LSQ(8, signed=False),
                    bias_grid=True,
                ),
            ),
            Rule(path="c", config=KernelConfig(3)),
            Rule(weight_bits=2, weight_quantizer="dorefa"),
            Rule(
                weight_bits=4,
                activation_bits=8,
                activation_quantizer=LSQ(8, initial_scale="lsq"),
            ),
        ),
        first_last_bits=None,
        weight_quantizer=LSQ(4, initial_scale="minmax"),
    )


@pytest.mark.parametrize(
    "policy",
    [policies.get("w3a3"), policies.get("w4"), every_kind_of_rule()],
    ids=["w3a3", "w4", "every kind"],
)
def test_round_trip(policy, tmp_path):
    policy.save(tmp_path / "policy.json")
    loaded = policies.get(str(tmp_path / "policy.json"))
    assert loaded == policy
    assert not loaded.diff(policy)
    assert loaded.to_json() == policy.to_json()


def test_only_what_was_said_is_written():
    data = json.loads(policies.get("w4").to_json())
    assert data["schema_version"] == 2
    assert data["rules"] == [{"weight_bits": 4}]


def test_version_1_is_read():
    assert QuantizePolicy.from_json(VERSION_1) == QuantizePolicy(
        rules=(
            Rule(path="head", weight_bits=8, activation_bits=8),
            Rule(layer_type="Conv2D", weight_bits=4, activation_bits=8),
        ),
        first_last_bits=None,
        stream_bits=6,
        scheme="paper",
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Expecting value"),
        ("[]", "not a policy"),
        ("{}", "schema_version"),
        ('{"schema_version": 99, "rules": []}', "99.*reads 1 and 2"),
        ('{"schema_version": 2}', "rules"),
        ('{"schema_version": 2, "rules": [3]}', "not a policy"),
        ('{"schema_version": 2, "rules": [{}]}', "says one thing"),
        (
            '{"schema_version": 1, "rules": [{"weight_bits": 4}]}',
            "no .'activation_bits'",
        ),
        ('{"schema_version": 2, "rules": [], "surprise": 1}', "surprise"),
        ('{"schema_version": 2, "rules": [], "scheme": "tpu"}', "tpu"),
    ],
)
def test_bad_json(text, message):
    with pytest.raises(ValueError, match=message) as error:
        QuantizePolicy.from_json(text)
    assert "not a policy of keras_saq" in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        policies.get(str(tmp_path / "none.json"))


def test_a_predicate_is_no_data(tmp_path):
    def is_wide(path, layer):
        return True

    policy = QuantizePolicy(
        rules=(
            Rule(path="a", weight_bits=8),
            Rule(path="b.*", predicate=is_wide, weight_bits=4),
        )
    )
    with pytest.raises(ValueError, match="Rule 1 .*path='b.*is_wide"):
        policy.save(tmp_path / "policy.json")
    assert not (tmp_path / "policy.json").exists()


def test_an_unknown_config_class_is_named():
    text = every_kind_of_rule().to_json().replace("KernelConfig", "Gone")
    with pytest.raises(ValueError, match="not a policy.*Gone"):
        QuantizePolicy.from_json(text)
