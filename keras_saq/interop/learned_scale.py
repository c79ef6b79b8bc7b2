"""The learned-scale quantizer in the form that TFMOT's wrappers work with.

TFMOT calls a quantizer with the values to quantize and with variables that
belong to its wrapper layer. Its classes can be derived from only once it is
imported, which also turns `tf.keras` into tf_keras; so they are made in
functions, at the first use.
"""

import functools
import operator

from keras_saq.interop.settings import UNCALIBRATED
from keras_saq.interop.settings import UNSIGNED
from keras_saq.interop.settings import Settings

# Names that a weight has in Keras 3, and in tf_keras.
_OTHER_NAMES = {"kernel": "depthwise_kernel"}


def fake_quantize(x, scale, qmin, qmax):
    """`scale * round(clip(x / scale))` with the gradients of LSQ.

    See `keras_saq.quantizers.fake_quant`, of which this is the form for
    TensorFlow tensors under any Keras backend.

    Args:
        x: float32 tensor.
        scale: float32 tensor that broadcasts against `x`.
        qmin: smallest code.
        qmax: largest code.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def function(x, scale):
        v = x / scale
        codes = tf.round(tf.clip_by_value(v, qmin, qmax))

        def gradient(dy):
            inside = tf.logical_and(v >= qmin, v <= qmax)
            dx = tf.where(inside, dy, tf.zeros_like(dy))
            ds = dy * codes - dx * v
            lead = len(ds.shape) - len(scale.shape)
            axes = [lead + i for i, n in enumerate(scale.shape) if n == 1]
            ds = tf.reduce_sum(ds, [*range(lead), *axes], keepdims=True)
            return dx, tf.reshape(ds, scale.shape)

        return codes * scale, gradient

    return function(x, scale)


@functools.cache
def quantizer_class():
    """The quantizer, derived from TFMOT's `Quantizer`."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.keras.compat import keras

    @keras.utils.register_keras_serializable("keras_saq")
    class LearnedScaleQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
        """LSQ (arXiv 1902.08153), with the scale in the wrapper's variables.

        Args:
            settings: a `Settings`, or the dict of one.
            weight: the variable that is quantized; its values give the first
                scale. `None`: the first batch that is trained on does.
        """

        def __init__(self, settings, weight=None):
            if isinstance(settings, dict):
                settings = Settings(**settings)
            self.settings = settings
            self.weight = weight

        def build(self, tensor_shape, name, layer):
            shape = tuple(tf.TensorShape(tensor_shape).as_list())
            log_scale, state = self.settings.first(shape)
            if self.weight is not None and state == UNCALIBRATED:
                with tf.init_scope():
                    value = keras.backend.get_value(self.weight)
                log_scale, state = self.settings.taken_from(value)
            _keep_order(layer)
            add = functools.partial(layer.add_weight, dtype="float32")
            constant = keras.initializers.Constant
            self.shape = self.settings.broadcast_shape(shape)
            return {
                "log_scale": add(
                    f"{name}_log_scale",
                    shape=log_scale.shape,
                    initializer=constant(log_scale),
                    trainable=True,
                ),
                "state": add(
                    f"{name}_state",
                    shape=(),
                    initializer=constant(state),
                    trainable=False,
                ),
            }

        def __call__(self, inputs, training, weights, **kwargs):
            x = tf.cast(inputs, tf.float32)
            log_scale, state = weights["log_scale"], weights["state"]
            if training:
                with tf.control_dependencies([self._take(x, log_scale, state)]):
                    x = tf.identity(x)
                    log_scale = tf.identity(log_scale)
            scale = tf.reshape(tf.exp(log_scale), self.shape)
            y = self._quantize(x, scale, tf.identity(state), training)
            return tf.cast(y, inputs.dtype)

        def _take(self, x, log_scale, state):
            """Takes the scale from the first batch."""

            def take():
                values = tf.numpy_function(
                    self.settings.taken_from, [x], [tf.float32, tf.float32]
                )
                log_scale.assign(tf.reshape(values[0], log_scale.shape))
                state.assign(tf.reshape(values[1], ()))
                return tf.constant(True)

            return tf.cond(
                tf.equal(state, UNCALIBRATED), take, lambda: tf.constant(False)
            )

        def _quantize(self, x, scale, state, training):
            settings = self.settings
            if settings.signed is None:
                unsigned = tf.equal(state, UNSIGNED)
                ranges = map(settings.code_range, (False, True))
                qmin, qmax = (
                    tf.where(unsigned, float(a), float(b))
                    for a, b in zip(*ranges)
                )
                narrow_range = False
                is_plain = settings.narrow_range
            else:
                qmin, qmax = map(float, settings.code_range(settings.signed))
                narrow_range = settings.narrow_range and settings.signed
                is_plain = False
            per_channel = tuple(self.shape) != ()
            if training or is_plain or settings.channel_axes not in ((), (-1,)):
                return fake_quantize(x, scale, qmin, qmax)
            # The operation that converters to LiteRT look for.
            operation = (
                tf.quantization.fake_quant_with_min_max_vars_per_channel
                if per_channel
                else tf.quantization.fake_quant_with_min_max_vars
            )
            return operation(
                x, qmin * scale, qmax * scale, settings.num_bits, narrow_range
            )

        def get_config(self):
            return {"settings": self.settings.as_data()}

    return LearnedScaleQuantizer


@functools.cache
def config_class():
    """The config, derived from TFMOT's `QuantizeConfig`."""
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.keras.compat import keras

    @keras.utils.register_keras_serializable("keras_saq")
    class LearnedScaleConfig(tfmot.quantization.keras.QuantizeConfig):
        """Weights and the output of a tf_keras layer, with learned scales.

        Args:
            weights: dict from attribute name to `Settings`, or their dicts.
            outputs: the same for the layer's output, or `None`.
        """

        def __init__(self, weights, outputs=None):
            self.weights = {k: _settings(v) for k, v in weights.items()}
            self.outputs = _settings(outputs)

        def get_weights_and_quantizers(self, layer):
            pairs = []
            for name, settings in self.weights.items():
                variable = operator.attrgetter(_name_in(layer, name))(layer)
                pairs.append((variable, quantizer_class()(settings, variable)))
            return pairs

        def set_quantize_weights(self, layer, quantize_weights):
            for name, value in zip(self.weights, quantize_weights, strict=True):
                *parts, attribute = _name_in(layer, name).split(".")
                holder = functools.reduce(getattr, parts, layer)
                setattr(holder, attribute, value)

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            if self.outputs is None:
                return []
            return [quantizer_class()(self.outputs)]

        def get_config(self):
            return {
                "weights": {k: s.as_data() for k, s in self.weights.items()},
                "outputs": self.outputs and self.outputs.as_data(),
            }

    return LearnedScaleConfig


def _keep_order(wrapper):
    """Lists the weights of the layer inside before those of quantizers.

    TFMOT's wrapper does so only if the layer is built before the wrapper,
    which it is when quantized and is not when loaded; the files of weights go
    by that order.
    """
    listed = wrapper._trainable_weights
    known = {id(variable) for variable in listed}
    inside = getattr(wrapper, "layer", wrapper).trainable_weights
    listed[:0] = [v for v in inside if id(v) not in known]


def _settings(value):
    return Settings(**value) if isinstance(value, dict) else value


def _name_in(layer, name):
    """The attribute of a tf_keras layer that holds a weight."""
    for candidate in (name, _OTHER_NAMES.get(name, name)):
        try:
            operator.attrgetter(candidate)(layer)
        except AttributeError:
            continue
        return candidate
    raise ValueError(
        f"The tf_keras layer '{layer.name}' ({type(layer).__name__}) has no "
        f"weight '{name}', which the `QuantizeConfig` names. Its weights are: "
        f"{[variable.name for variable in layer.weights]}."
    )
