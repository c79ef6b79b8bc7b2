import keras
import pytest

from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import LSQ


def every_field():
    return QuantizeConfig(
        {"kernel": LSQ(4, narrow_range=True, channel_axes=(-1,))},
        inputs=LSQ(6),
        outputs=LSQ(8, signed=False),
        logits=LSQ(7),
        bias_grid=True,
    )


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def test_round_trip():
    config = every_field()
    copy = QuantizeConfig.from_config(config.get_config())
    assert copy.get_config() == config.get_config()
    assert copy == config
    empty = QuantizeConfig.from_config(QuantizeConfig().get_config())
    assert empty.inputs is None
    assert empty != config


def test_the_five_methods_answer_from_the_fields():
    config = every_field()
    layer = built(keras.layers.Dense(2, activation="softmax"), 3)
    ((variable, quantizer),) = config.get_weights_and_quantizers(layer)
    assert variable is layer.kernel
    assert quantizer is config.weights["kernel"]
    ((activation, quantizer),) = config.get_activations_and_quantizers(layer)
    assert activation is layer.activation
    assert quantizer is config.logits
    assert config.get_output_quantizers(layer) == [config.outputs]
    empty = QuantizeConfig()
    assert empty.get_weights_and_quantizers(layer) == []
    assert empty.get_activations_and_quantizers(layer) == []
    assert empty.get_output_quantizers(layer) == []


def test_setting_replaces_what_the_layer_computes_with():
    config = every_field()
    layer = built(keras.layers.Dense(2, use_bias=False), 3)
    config.set_quantize_weights(layer, [keras.ops.ones((3, 2))])
    config.set_quantize_activations(layer, [lambda x: -x])
    result = keras.ops.convert_to_numpy(layer(keras.ops.ones((1, 3))))
    assert result.tolist() == [[-3.0, -3.0]]


def test_setting_in_a_part_of_the_layer():
    config = QuantizeConfig({"cell.recurrent_kernel": LSQ(4)})
    layer = built(keras.layers.SimpleRNN(2), 5, 3)
    ((variable, _),) = config.get_weights_and_quantizers(layer)
    assert variable is layer.cell.recurrent_kernel
    value = keras.ops.ones((2, 2))
    config.set_quantize_weights(layer, [value])
    assert layer.cell.recurrent_kernel is value


def test_setting_checks_the_number():
    layer = built(keras.layers.Dense(2), 3)
    with pytest.raises(ValueError, match="quantizes 1 weights. Received: 2"):
        every_field().set_quantize_weights(layer, [1, 2])
    with pytest.raises(ValueError, match="quantizes 0 activations"):
        QuantizeConfig().set_quantize_activations(layer, [abs])


def test_clone_has_quantizers_of_its_own():
    config = every_field()
    config.outputs.initialize([0.0, 3.0])
    clone = config.clone()
    assert clone == config
    assert clone.weights["kernel"] is not config.weights["kernel"]
    for field in ("inputs", "outputs", "logits"):
        assert getattr(clone, field) is not getattr(config, field)
    assert not clone.outputs.built
    assert QuantizeConfig().clone() == QuantizeConfig()


def test_a_class_without_fields_can_be_cloned_and_stored():
    class Own(QuantizeConfig):
        def __init__(self, bits):
            self.bits = bits

        def get_config(self):
            return {"bits": self.bits}

    clone = Own(3).clone()
    assert type(clone) is Own
    assert clone == Own(3) != Own(4)
    assert Own.from_config(Own(5).get_config()).bits == 5
    assert clone.get_output_quantizers(None) == []
