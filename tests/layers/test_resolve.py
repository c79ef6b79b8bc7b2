import types

import keras
import numpy as np
import pytest

from keras_saq.layers import resolve
from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import LSQ

layers = keras.layers


def stand_in(name, **attributes):
    """An object of a class of TFMOT's, as far as its settings go."""
    attributes = {
        "num_bits": 8,
        "per_axis": False,
        "symmetric": True,
        "narrow_range": False,
        **attributes,
    }
    class_attributes = {"__call__": lambda self, inputs, training, weights: 0}
    quantizer = type(name, (), class_attributes)()
    vars(quantizer).update(attributes)
    return quantizer


class DenseConfig:
    """A user's config for TFMOT: five methods and no base class from here."""

    def __init__(self, weight=None, activation=None, output=None):
        self.weight = weight or stand_in("LastValueQuantizer")
        self.activation = activation
        self.output = output

    def get_weights_and_quantizers(self, layer):
        return [(layer.kernel, self.weight)]

    def get_activations_and_quantizers(self, layer):
        quantizer = self.activation
        return [] if quantizer is None else [(layer.activation, quantizer)]

    def set_quantize_weights(self, layer, quantize_weights):
        raise AssertionError("a layer is only read")

    def set_quantize_activations(self, layer, quantize_activations):
        raise AssertionError("a layer is only read")

    def get_output_quantizers(self, layer):
        return [] if self.output is None else [self.output]

    def get_config(self):
        return {}


def dense(**kwargs):
    layer = layers.Dense(2, name="head", **kwargs)
    layer.build((None, 3))
    return layer


def test_fields_are_taken_over():
    given = QuantizeConfig(
        {"kernel": LSQ(4, channel_axes=(-1,), name="mine")},
        inputs=LSQ(6),
        outputs=LSQ(5),
        logits=LSQ(7),
        bias_grid=True,
    )
    config = resolve(given, dense())
    assert type(config) is QuantizeConfig
    assert config == given
    assert config.weights["kernel"] is not given.weights["kernel"]
    assert config.outputs is not given.outputs


def test_each_layer_has_its_own_quantizers():
    given = DenseConfig(weight=LSQ(4), output=LSQ(8))
    first, second = resolve(given, dense()), resolve(given, dense())
    assert first == second
    assert first.weights["kernel"] is not second.weights["kernel"]
    assert first.outputs is not second.outputs


def test_none_is_no_quantizer():
    """As in configs that were written for TFMOT."""

    class Config(DenseConfig):
        def get_activations_and_quantizers(self, layer):
            return None

        def get_output_quantizers(self, layer):
            return None

    config = resolve(Config(), dense())
    assert config.outputs is None and list(config.weights) == ["kernel"]


UPDATES = {
    "LastValueQuantizer": "last_value",
    "MovingAverageQuantizer": "moving_average",
    "AllValuesQuantizer": "all_values",
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("num_bits", [8, 4])
@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("narrow_range", [False, True])
def test_weight_quantizers_of_tfmot(name, num_bits, per_axis, narrow_range):
    quantizer = stand_in(
        name, num_bits=num_bits, per_axis=per_axis, narrow_range=narrow_range
    )
    config = resolve(DenseConfig(weight=quantizer), dense())
    (ours,) = config.weights.values()
    assert list(config.weights) == ["kernel"]
    assert ours.num_bits == num_bits
    assert ours.channel_axes == ((-1,) if per_axis else ())
    assert ours.narrow_range is narrow_range
    assert ours.signed is True
    assert ours.symmetric is True
    assert ours.update == UPDATES[name]
    assert ours.name == "kernel_quantizer"
    kernel = np.float32([[1.0, -3.0], [0.25, 2.0], [-0.5, 1.0]])
    ours.initialize(kernel)
    axis = 0 if per_axis else None
    scale = np.maximum(
        kernel.max(axis) / (2 ** (num_bits - 1) - 1),
        -kernel.min(axis) / (2 ** (num_bits - 1) - narrow_range),
    )
    np.testing.assert_allclose(ours.scale, scale, rtol=1e-6)
    assert config.outputs is None
    assert config.inputs is None


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("where", ["activation", "output"])
def test_activation_quantizers_of_tfmot(symmetric, where):
    quantizer = stand_in("MovingAverageQuantizer", symmetric=symmetric)
    layer = dense(activation="relu")
    config = resolve(DenseConfig(**{where: quantizer}), layer)
    assert config.outputs.num_bits == 8
    assert config.outputs.symmetric is symmetric
    assert config.outputs.signed is True
    assert config.outputs.update == "moving_average"
    assert config.outputs.name == "output_quantizer"
    assert config.logits is None


def test_a_description_without_numerics_will_do():
    description = types.SimpleNamespace(
        num_bits=4, per_axis=True, symmetric=True, narrow_range=True
    )
    config = resolve(DenseConfig(weight=description), dense())
    assert config.weights["kernel"].channel_axes == (-1,)
    assert config.weights["kernel"].update == "last_value"


def test_no_quantizer_means_none():
    nothing = type("NoQuantizer", (), {"__call__": lambda self, x: x})()
    config = resolve(DenseConfig(weight=nothing, output=nothing), dense())
    assert config == QuantizeConfig()


def test_a_class_may_override_some_methods():
    class Own(QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return [(layer.bias, LSQ(8)), (layer.kernel, LSQ(3))]

    given = Own(inputs=LSQ(6), logits=LSQ(7), outputs=LSQ(5), bias_grid=True)
    config = resolve(given, dense(activation="softmax"))
    assert {k: q.num_bits for k, q in config.weights.items()} == {
        "bias": 8,
        "kernel": 3,
    }
    bits = [getattr(config, f).num_bits for f in ("inputs", "logits")]
    assert [*bits, config.outputs.num_bits] == [6, 7, 5]
    assert config.bias_grid


def test_logits_that_a_class_adds_to_stay_logits():
    class Own(QuantizeConfig):
        def get_activations_and_quantizers(self, layer):
            return super().get_activations_and_quantizers(layer)

    config = resolve(Own(logits=LSQ(7)), dense(activation="softmax"))
    assert config.logits.num_bits == 7
    assert config.outputs is None


@keras.saving.register_keras_serializable("test_resolve")
class Gated(layers.Layer):
    """Weights under attributes of its own, and one in a part."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, name="something_else")

    def build(self, input_shape):
        self._gate = self.add_weight(name="w", shape=(3,))
        self.shift = self.add_weight(name="w", shape=(3,))
        self.inner.build(input_shape)

    def call(self, x):
        return self.inner(x) * self._gate + self.shift


def test_weights_are_found_by_identity():
    class Own(QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            variables = [layer.shift, layer._gate, layer.inner.kernel]
            return [(variable, LSQ(4)) for variable in variables]

    layer = Gated()
    layer.build((None, 3))
    config = resolve(Own(), layer)
    assert list(config.weights) == ["shift", "_gate", "inner.kernel"]


def test_recurrent_weights():
    class Own(QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return [
                (layer.cell.kernel, LSQ(4)),
                (layer.cell.recurrent_kernel, LSQ(8)),
            ]

    layer = layers.LSTM(2)
    layer.build((None, 5, 3))
    weights = resolve(Own(), layer).weights
    assert list(weights) == ["cell.kernel", "cell.recurrent_kernel"]


def test_the_layer_is_only_read():
    layer = dense(activation="relu")
    attributes, variables = dict(vars(layer)), list(layer.variables)
    quantizer = stand_in("MovingAverageQuantizer")
    resolve(DenseConfig(activation=quantizer), layer)
    assert vars(layer) == attributes
    assert [id(v) for v in layer.variables] == [id(v) for v in variables]


def returns(pairs):
    class Own(QuantizeConfig):
        def get_weights_and_quantizers(self, layer):
            return pairs(layer)

    return Own()


class Doubled:
    """Computes something of its own; the four attributes do not say it."""

    num_bits, per_axis, symmetric, narrow_range = 8, False, True, False

    def __call__(self, inputs, training, weights):
        return 2 * inputs


class DerivedLastValue(type(stand_in("LastValueQuantizer"))):
    def __call__(self, inputs, training, weights):
        return inputs


@pytest.mark.parametrize(
    "config, message",
    [
        ("w4a8", "is none. Expected .*of type str"),
        (None, "of type NoneType"),
        (QuantizeConfig({"kernal": LSQ(4)}), "no weight 'kernal'.*'kernel'"),
        (QuantizeConfig({"units": LSQ(4)}), "no weight 'units'"),
        (
            returns(lambda layer: [(layer.kernel * 2, LSQ(4))]),
            "no weight variable of layer 'head'",
        ),
        (
            returns(lambda layer: [(layer.kernel, LSQ(4))] * 2),
            "Two quantizers are given for weight 'kernel'",
        ),
        (DenseConfig(weight=Doubled()), "not known here.*Doubled"),
        (DenseConfig(weight=DerivedLastValue()), "not known here"),
        (DenseConfig(weight=4), "of type int"),
        (
            DenseConfig(weight=stand_in("FixedQuantizer")),
            "of type FixedQuantizer",
        ),
        (
            DenseConfig(weight=stand_in("LastValueQuantizer", num_bits=16)),
            "weight 'kernel' of layer 'head' .* between 2 and 8",
        ),
        (
            DenseConfig(weight=stand_in("LastValueQuantizer", symmetric=False)),
            "no zero point here",
        ),
        (
            DenseConfig(output=stand_in("AllValuesQuantizer", per_axis=True)),
            "the output of layer 'head'.*per_axis=False",
        ),
        (DenseConfig(activation=LSQ(8), output=LSQ(8)), "quantized 2 times"),
    ],
)
def test_refusals(config, message):
    with pytest.raises(ValueError, match=message):
        resolve(config, dense())


def test_an_activation_inside_of_a_layer_is_refused():
    layer = layers.LSTM(2, name="lstm")
    layer.build((None, 5, 3))
    config = DenseConfig(activation=LSQ(8))
    config.get_weights_and_quantizers = lambda layer: []
    with pytest.raises(ValueError, match="'tanh' for layer 'lstm'"):
        resolve(config, layer)


def test_an_unbuilt_layer_is_refused():
    with pytest.raises(ValueError, match="'head' .* is not built"):
        resolve(QuantizeConfig(), layers.Dense(2, name="head"))
