import keras
import pytest

from keras_saq import quantizers
from keras_saq.quantizers import LSQ


@pytest.mark.parametrize("name", quantizers.known_names())
def test_names_make_quantizers_from_what_a_policy_says(name):
    quantizer = quantizers.get(
        name,
        num_bits=4,
        signed=True,
        narrow_range=True,
        channel_axes=(-1,),
        group_size=None,
        initial_scale="minmax",
        name="kernel_quantizer",
    )
    assert isinstance(quantizer, quantizers.Quantizer)
    assert quantizer.channel_axes == (-1,)
    assert quantizer.name == "kernel_quantizer"
    assert type(quantizer) is quantizers.get(type(quantizer)).__class__
    config = keras.saving.serialize_keras_object(quantizer)
    copy = quantizers.get(config)
    assert type(copy) is type(quantizer)
    assert copy.get_config() == quantizer.get_config()


@pytest.mark.parametrize("name", ["LSQ", "lsq"])
def test_names_are_read_leniently(name):
    assert isinstance(quantizers.get(name), LSQ)


def test_an_instance_is_returned_as_it_is():
    quantizer = LSQ(3)
    assert quantizers.get(quantizer, num_bits=5) is quantizer
    assert quantizers.get(None) is None


def test_unknown_names_suggest_a_known_one():
    with pytest.raises(ValueError, match="'lsqq'.*'lsq'.*Did you mean 'lsq'"):
        quantizers.get("lsqq")
    with pytest.raises(ValueError, match="Received: 3 of type int"):
        quantizers.get(3)


def test_configurations_of_other_things_are_refused():
    with pytest.raises(ValueError, match="class_name"):
        quantizers.get({"num_bits": 3})
    dense = keras.saving.serialize_keras_object(keras.layers.Dense(2))
    with pytest.raises(ValueError, match="Received: one of a Dense"):
        quantizers.get(dense)


def test_an_argument_that_no_quantizer_has_is_refused():
    with pytest.raises((TypeError, ValueError), match="bits"):
        quantizers.get("lsq", bits=4)


def test_a_role_is_checked():
    quantizer = LSQ(4)
    assert quantizers.check_role(quantizer, "weights") is quantizer
    assert quantizers.check_role(None, "activations") is None
    with pytest.raises(ValueError, match="`role`.*'bias'"):
        quantizers.check_role(quantizer, "bias")
