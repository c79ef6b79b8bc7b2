"""TensorFlow Model Optimization (TFMOT): configs there and back.

Import of this module costs nothing. TFMOT itself is imported when `to_tfmot`
is called, and from then on `tf.keras` is tf_keras; Keras 3, imported as
`keras`, is not touched by that.

    import tf_keras
    import tensorflow_model_optimization as tfmot

    import keras_saq
    from keras_saq.interop.tfmot import to_tfmot
    from keras_saq.quantizers import LSQ

    config = keras_saq.QuantizeConfig(
        {"kernel": LSQ(4, narrow_range=True, channel_axes=(-1,))},
        outputs=LSQ(8, signed=None),
    )
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    model = tf_keras.Sequential([
        annotate(tf_keras.layers.Dense(4, input_shape=(8,)), to_tfmot(config)),
    ])
    q = tfmot.quantization.keras.quantize_apply(model)
    q.compile("adam", "mse")
    q.fit(x, y)  # trains the scales too
"""

from keras_saq import policy as policies
from keras_saq.interop.settings import Settings
from keras_saq.layers import resolve

# What TFMOT's protocol has no place for, and why it is asked for elsewhere.
_UNKNOWN_TO_TFMOT = {
    "inputs": "TFMOT quantizes a tensor where it is made: give the config of "
    "the layer before an `outputs` quantizer instead",
    "logits": "TFMOT's wrappers quantize what an activation returns, not what "
    "it receives",
    "inner": "TFMOT's wrappers see a layer from outside only",
    "bias_grid": "TFMOT leaves the bias to the converter, which rounds it",
}


def to_tfmot(config):
    """A `QuantizeConfig` as TFMOT accepts it, for tf_keras layers.

    Weights and outputs get TFMOT quantizers with a trained scale. A quantizer
    that has a scale already takes it along; the scales of the others start
    from the weights when the layer is built, and from the first batch that is
    trained on. Outside of training they are TensorFlow's `fake_quant`
    operations, which converters to LiteRT understand.

    Args:
        config: a `keras_saq.QuantizeConfig` whose quantizers are
            `keras_saq.quantizers.LSQ`.

    Returns:
        A `tfmot.quantization.keras.QuantizeConfig`.

    Raises:
        ImportError: if TFMOT is not installed.
        ValueError: if the config says something that TFMOT cannot do.
    """
    if not isinstance(config, policies.QuantizeConfig):
        raise ValueError(
            "`to_tfmot` takes a `keras_saq.QuantizeConfig`. "
            f"Received: {config!r} of type {type(config).__name__}"
        )
    if type(config).get_weights_and_quantizers is not (
        policies.QuantizeConfig.get_weights_and_quantizers
    ):
        raise ValueError(
            "`to_tfmot` takes a config that says in fields what it quantizes. "
            f"Received: a {type(config).__name__} with methods of its own, "
            "which Keras 3 layers are given to. Call "
            "`keras_saq.layers.resolve(config, layer)` with such a layer, and "
            "`to_tfmot` with the result."
        )
    refused = [
        f"`{field}`: {reason}"
        for field, reason in _UNKNOWN_TO_TFMOT.items()
        if getattr(config, field, None)
    ]
    if refused:
        raise ValueError(
            "TFMOT has no place for all that the config says: "
            f"{'; '.join(refused)}. Received: {config!r}"
        )
    weights = {
        name: Settings.of(quantizer, f"weight '{name}'")
        for name, quantizer in config.weights.items()
    }
    outputs = config.outputs and Settings.of(config.outputs, "the output")
    return _classes().config_class()(weights, outputs)


def from_tfmot(config, layer):
    """A config that was written for TFMOT, for a Keras 3 layer.

    The config's methods are asked once, with the layer. TFMOT need not be
    installed for that, only what the config itself imports.
    `quantize_annotate_layer` and `Rule(config=...)` take such configs too, and
    then ask by themselves; the result of this function can be looked at,
    changed and saved as JSON.

    Args:
        config: an object with the methods of
            `tfmot.quantization.keras.QuantizeConfig`.
        layer: the built Keras 3 layer that it is meant for.

    Returns:
        A `keras_saq.QuantizeConfig`; see `keras_saq.layers.resolve` for what
        becomes of TFMOT's quantizers, and for errors.

    Example:

    >>> import keras
    >>> from keras_saq.interop.tfmot import from_tfmot
    >>> class LastValueQuantizer:  # as in tfmot.quantization.keras.quantizers
    ...     num_bits, per_axis, symmetric, narrow_range = 4, True, True, True
    >>> class MyDenseConfig:
    ...     def get_weights_and_quantizers(self, layer):
    ...         return [(layer.kernel, LastValueQuantizer())]
    ...     def get_activations_and_quantizers(self, layer):
    ...         return []
    ...     def set_quantize_weights(self, layer, quantize_weights):
    ...         layer.kernel = quantize_weights[0]
    ...     def set_quantize_activations(self, layer, quantize_activations):
    ...         pass
    ...     def get_output_quantizers(self, layer):
    ...         return []
    >>> layer = keras.layers.Dense(3)
    >>> layer.build((None, 2))
    >>> config = from_tfmot(MyDenseConfig(), layer)
    >>> config.weights["kernel"].num_bits
    4
    """
    return resolve(config, layer)


def _classes():
    try:
        import tensorflow_model_optimization  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "TensorFlow Model Optimization is needed for tf_keras layers, and "
            f"cannot be imported: {error}. Install it:\n\n"
            "    pip install 'keras-saq[tfmot]'"
        ) from error
    from keras_saq.interop import learned_scale

    return learned_scale
