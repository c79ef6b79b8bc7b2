"""What is quantized in one layer."""

import keras


@keras.saving.register_keras_serializable("keras_saq")
class QuantizeConfig:
    """Names the quantizers of one layer.

    Args:
        weights: dict from the name of a layer's weight attribute to the
            quantizer of that weight, e.g. `{"kernel": LSQ(4, ...)}`.
        inputs: quantizer of the layer's first input, or `None`.
        outputs: quantizer of the layer's output, or `None`.
        logits: quantizer of what goes into the layer's own activation
            function, for a `softmax` or `sigmoid` that stays in float.
        bias_grid: whether the bias is rounded to the grid of the integer
            accumulator, `input scale * weight scale`, as the file stores it.

    Example:

    >>> from keras_saq.policy import QuantizeConfig
    >>> from keras_saq.quantizers import LSQ
    >>> weight = LSQ(4, narrow_range=True, channel_axes=(-1,))
    >>> config = QuantizeConfig({"kernel": weight}, inputs=LSQ(8))
    >>> QuantizeConfig.from_config(config.get_config()).inputs.num_bits
    8
    """

    def __init__(
        self,
        weights=None,
        inputs=None,
        outputs=None,
        logits=None,
        bias_grid=False,
    ):
        self.weights = dict(weights or {})
        self.inputs = inputs
        self.outputs = outputs
        self.logits = logits
        self.bias_grid = bool(bias_grid)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "weights": {k: serialize(q) for k, q in self.weights.items()},
            "inputs": serialize(self.inputs),
            "outputs": serialize(self.outputs),
            "logits": serialize(self.logits),
            "bias_grid": self.bias_grid,
        }

    @classmethod
    def from_config(cls, config):
        deserialize = keras.saving.deserialize_keras_object

        def one(value):
            return deserialize(value) if isinstance(value, dict) else value

        return cls(
            weights={k: one(q) for k, q in config["weights"].items()},
            inputs=one(config["inputs"]),
            outputs=one(config["outputs"]),
            logits=one(config["logits"]),
            bias_grid=config["bias_grid"],
        )
