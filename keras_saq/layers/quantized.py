"""A quantized look-alike of any layer class."""

import contextlib
import functools
import inspect

import keras
from keras import ops
from keras import tree

from keras_saq.layers import roles
from keras_saq.layers.attention import UnfusedAttention
from keras_saq.layers.attention import can_unfuse
from keras_saq.layers.batch_normalization import call_on_bias_grid
from keras_saq.layers.composite import Composite
from keras_saq.layers.hidden import Hidden
from keras_saq.layers.hidden import as_float
from keras_saq.layers.hidden import freeze
from keras_saq.layers.hidden import serialize_float
from keras_saq.layers.links import are_kept
from keras_saq.layers.links import find_source
from keras_saq.layers.observation import observer
from keras_saq.layers.operation import OperationLayer
from keras_saq.layers.overlay import Overlay
from keras_saq.layers.overlay import read_uncast
from keras_saq.layers.perturbation import perturbed
from keras_saq.layers.roles import has_integer_bias
from keras_saq.layers.roles import is_weighted
from keras_saq.layers.roles import weight
from keras_saq.layers.saving import Saveable
from keras_saq.layers.saving import refuse_legacy_format
from keras_saq.layers.saving import renamed
from keras_saq.layers.separable import call_in_two_steps
from keras_saq.layers.typical import typical_output
from keras_saq.layers.typical import typical_weight
from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import all_seen
from keras_saq.quantizers import function_behind
from keras_saq.quantizers import is_calibrating
from keras_saq.quantizers import is_passing_through


class Quantized(Saveable, Composite):
    """Mixin that turns a layer class into its quantized look-alike.

    `quantized_class(Conv2D)` is a subclass of `Conv2D`: it has its variables,
    its configuration and its `isinstance`. While its `call` runs, and only
    then, its weights read as their fake-quantized values (see `Overlay`), so
    that `layer.kernel` stays the latent float weight that is trained and
    saved. The look-alike serialises as the float layer plus a
    `QuantizeConfig`, under one registered name for every class. A composite
    layer also has the table of what becomes of the layers inside of it (see
    `keras_saq.layers.hidden`).

    Attributes:
        quantize_config: the `QuantizeConfig`.
        quantizers: list of the layer's own quantizers.
        weight_names: names of the weights that are quantized.
    """

    @classmethod
    def from_config(cls, config):
        """The quantized layer that a float layer and quantizers make."""
        deserialize = keras.saving.deserialize_keras_object
        layer, quantize = config["layer"], config["quantize"]
        if isinstance(layer, dict):
            layer = deserialize(renamed(layer, config.get("name")))
        if isinstance(quantize, dict):
            quantize = deserialize(quantize)
        if "hidden" not in config:
            return _look_alike(layer, quantize)
        hidden = {
            place: entry
            if isinstance(entry, Hidden)
            else Hidden.from_config(entry)
            for place, entry in config["hidden"].items()
        }
        if not config.get("trainable", True):
            freeze(layer)
        return as_composite(
            layer,
            quantize,
            hidden,
            config["outputs"],
            config.get("frozen", ()),
        )

    def get_config(self):
        refuse_legacy_format(self.name)
        config = {
            # For who changes the name of a copy, as Keras's layers have it.
            "name": self.name,
            "layer": serialize_float(self),
            "quantize": keras.saving.serialize_keras_object(
                self.quantize_config
            ),
        }
        return config | self._parts_config()

    def _attach(self, config):
        """Makes the quantizers children, before the layer is built."""
        self.__dict__["quantize_config"] = config
        self._set_source(None)
        for name, quantizer in config.weights.items():
            setattr(self, f"{name.replace('.', '_')}_quantizer", quantizer)
        self.input_quantizer = config.inputs
        self.output_quantizer = config.outputs
        self.logits_quantizer = config.logits
        self.inner_quantizer = config.inner
        if config.logits is not None:
            self.__dict__["_float_activation"] = self.activation
            self.activation = functools.partial(
                _quantize_then, config.logits, self.activation
            )

    @staticmethod
    def _quantize_part(layer, config):
        quantize_in_place(layer, config)

    @property
    def weight_names(self):
        """Names of the quantized weights."""
        return list(self.quantize_config.weights)

    @property
    def quantizers(self):
        """Every quantizer of the layer, weights first."""
        config = self.quantize_config
        others = (config.inputs, config.inner, config.logits, config.outputs)
        return [*config.weights.values(), *(q for q in others if q is not None)]

    def weight_quantizer(self, name):
        """The quantizer of one weight, e.g. of `"kernel"`."""
        return self.quantize_config.weights[name]

    def quantized_weights(self):
        """List of `(name, latent variable, quantizer)`, one per weight.

        A name can lead into a part of the layer: `"cell.kernel"` of an LSTM.
        """
        return [
            (name, weight(self, name), quantizer)
            for name, quantizer in self.quantize_config.weights.items()
        ]

    def initialize_weight_scales(self):
        """Takes the scale of each weight from the weight itself."""
        for name, variable, quantizer in self.quantized_weights():
            typical = typical_weight(self, name, variable.shape)
            quantizer.initialize(variable, typical)

    def _build_quantizers(self):
        with _scope_of(self):
            for _, variable, quantizer in self.quantized_weights():
                if not quantizer.built:
                    quantizer.build(variable.shape)
            # A tensor's quantizer has one scale, whatever the tensor's shape.
            for quantizer in self.quantizers:
                if not quantizer.built:
                    quantizer.build(())

    def __call__(self, *args, **kwargs):
        self._link(args, kwargs)
        outputs = super().__call__(*args, **kwargs)
        if self.quantized_parts is not None and self._is_pending:
            # Attention knows its output shape, and was only built.
            self._apply_hidden()
        return outputs

    def _link(self, args, kwargs):
        tensors = tree.flatten((args, kwargs))
        if not (tensors and isinstance(tensors[0], keras.KerasTensor)):
            return
        if are_kept():
            return
        if self.quantized_parts is not None:
            self.__dict__["_input_sources"] = [
                find_source(tensor)
                for tensor in tensors
                if isinstance(tensor, keras.KerasTensor)
            ]
            if not self._is_pending:
                self._apply_hidden()
        elif is_weighted(self) or roles.is_batch_norm(self):
            source = find_source(tensors[0])
            if source is not None:
                self._set_source(source)

    def _set_source(self, layer):
        # As a function: Keras walks the attributes of a layer for what is to
        # be saved, and a layer may well read what it made itself.
        self.__dict__["_source"] = lambda: layer

    def input_source(self):
        """The layer that makes this layer's input, where that matters."""
        return self._source()

    def input_scale(self):
        """Scale of the integers that this layer reads, or `None`."""
        if self.input_quantizer is not None:
            return self.input_quantizer.scale
        source = self.input_source()
        if source is not None and source.output_quantizer:
            return source.output_quantizer.scale
        return None

    def accumulator_step(self):
        """What an integer bias counts: `input scale * weight scale`.

        Returns:
            A tensor with one value per output channel, or `None` where the
            layer has no integer kernel or the scale of its input is unknown.
        """
        if not has_integer_bias(self):
            return None
        if roles.is_separable(self):
            quantizer = self.quantize_config.weights.get("pointwise_kernel")
            inner = self.inner_quantizer
            scale = None
            if inner is not None and not (
                # The first call, which takes the scale on its way.
                is_calibrating() and not inner.calibrated
            ):
                scale = inner.scale
        else:
            quantizer = self.quantize_config.weights.get("kernel")
            scale = self.input_scale()
        if quantizer is None or scale is None:
            return None
        return scale * ops.reshape(quantizer.scale, (-1,))

    def _call(self, float_call, *args, **kwargs):
        """Quantized or, where nothing is to be, in float; and observed."""
        if is_passing_through():
            with as_float([self]):
                outputs = type(self).call(self, *args, **kwargs)
        else:
            outputs = self._quantized_call(float_call, *args, **kwargs)
        observe = observer()
        if observe is not None:
            observe(self, args, kwargs, outputs)
        return outputs

    def _quantized_call(self, float_call, inputs, *args, **kwargs):
        if self.quantized_parts is not None and self._is_pending:
            # Builds what is inside.
            float_call(self, inputs, *args, **kwargs)
            self._apply_hidden()
        if is_calibrating() and roles.family(self) == "time_distributed":
            # All steps of the sequence at once, not the first one alone.
            self.layer(ops.reshape(inputs, (-1, *inputs.shape[2:])))
        if self.input_quantizer is not None:
            behind = None
            if roles.is_softmax(self):
                behind = functools.partial(float_call, self)
            inputs = _quantize(self.input_quantizer, inputs, None, behind)
            if isinstance(self, OperationLayer):
                args = _quantize(self.input_quantizer, args)
        if self._relu_is_in_the_quantizer():
            return _quantize(self.output_quantizer, inputs)
        # How large it would be, should calibration see nothing but zeros.
        typical = functools.partial(typical_output, self, (inputs, args))
        values = self.overlaid_values()
        if values:
            with Overlay(values):
                outputs = float_call(self, inputs, *args, **kwargs)
        else:
            outputs = float_call(self, inputs, *args, **kwargs)
        if self.output_quantizer is not None:
            outputs = _quantize(self.output_quantizer, outputs, typical)
        return outputs

    def _relu_is_in_the_quantizer(self):
        """Whether the quantizer's lower bound does what a ReLU layer does.

        Then the layer's own two passes over memory are left out. While the
        quantizer is calibrated it must not see what ReLU cuts off.
        """
        return (
            self.output_quantizer is not None
            and self.output_quantizer.clips_below_zero
            and not is_calibrating()
            and roles.is_relu(self)
            and roles.activation_of(self) == "relu"
        )

    def overlaid_values(self):
        """List of `(variable, what it reads as)` while the layer is called."""
        values = []
        for _, variable, quantizer in self.quantized_weights():
            quantized = quantizer(read_uncast(variable))
            values.append((variable, perturbed(variable, quantized)))
        if self.quantize_config.bias_grid and is_weighted(self):
            bias, step = getattr(self, "bias", None), self.accumulator_step()
            if bias is not None and step is not None:
                if step.shape != (1,):  # one for all channels
                    step = ops.reshape(step, bias.shape)
                values.append((bias, snap(read_uncast(bias), step)))
        return values


def snap(bias, step):
    """`bias` rounded to multiples of `step`, straight-through gradient."""
    return bias + ops.stop_gradient(step * ops.round(bias / step) - bias)


def _quantize(quantizer, tensors, typical=None, behind=None):
    """Tensors behind a quantizer, which is calibrated where it shall be.

    Args:
        quantizer: a quantizer of tensors.
        tensors: a structure of tensors, and of what is none.
        typical: see `Quantizer.initialize`.
        behind: see `Quantizer.initialize`.
    """
    if is_passing_through():
        return tensors
    return tree.map_structure(
        lambda x: (
            _quantize_one(quantizer, x, typical, behind)
            if ops.is_tensor(x)
            else x
        ),
        tensors,
    )


def _quantize_one(quantizer, x, typical=None, behind=None):
    if not keras.backend.is_float_dtype(x.dtype):
        # Some layers make integers where Keras's shapes speak of floats.
        x = ops.cast(x, "float32")
    if is_calibrating():
        seen = all_seen(quantizer, x)
        if not quantizer.calibrated:
            behind = behind or function_behind(quantizer)
            quantizer.initialize(x, typical, behind)
        elif seen is not None:
            quantizer.initialize(seen, typical)
    return ops.cast(quantizer(x), x.dtype)


def _quantize_then(quantizer, activation, x):
    return activation(_quantize(quantizer, x, behind=activation))


@functools.cache
def quantized_class(float_class):
    """The quantized look-alike of a layer class, made once per class.

    Args:
        float_class: a class of Keras layers.

    Returns:
        A subclass of it and of `Quantized`.

    Example:

    >>> import keras
    >>> from keras_saq.layers import Quantized, quantized_class
    >>> issubclass(quantized_class(keras.layers.Dense), Quantized)
    True
    """
    role = roles.of_class(float_class)
    own_calls = {
        "batch_norm": call_on_bias_grid,
        "separable": call_in_two_steps,
    }
    float_call = own_calls.get(role and role.family, float_class.call)
    first = list(inspect.signature(float_class.call).parameters)[1]

    @functools.wraps(float_class.call)
    def call(self, *args, **kwargs):
        if not args:
            args = (kwargs.pop(first),)
        return self._call(float_call, *args, **kwargs)

    # Keras reads the signatures of `build` and `call`: keep the originals'.
    @functools.wraps(float_class.build)
    def build(self, *args, **kwargs):
        float_class.build(self, *args, **kwargs)
        self._build_quantizers()

    # A weightless layer would otherwise count as built, and be locked,
    # before it has its quantizers.
    build.__dict__.pop("_is_default", None)

    mixins = (UnfusedAttention,) if can_unfuse(float_class) else ()
    look_alike = type(
        f"Quantized{float_class.__name__}",
        (Quantized, *mixins, float_class),
        {
            "build": build,
            "call": call,
            "_float_class": float_class,
            "__module__": __name__,
            "__doc__": f"Quantized look-alike of `{float_class.__name__}`.",
        },
    )
    # One name for all: `from_config` finds the class in the configuration.
    return keras.saving.register_keras_serializable("keras_saq", "Quantized")(
        look_alike
    )


def _look_alike(layer, config):
    """An unbuilt quantized layer, of the class and settings of `layer`."""
    float_class = type(layer)
    look_alike = float_class.from_config.__func__(
        quantized_class(float_class), layer.get_config()
    )
    look_alike._attach(config)
    if look_alike.built:  # a layer that has nothing to build
        look_alike._build_quantizers()
    return look_alike


def as_composite(layer, config, hidden, output_places=(), frozen=()):
    """Turns a composite layer into its look-alike, and itself only.

    Args:
        layer: a layer that consists of layers, built or not.
        config: its own `QuantizeConfig`.
        hidden: dict from place to `Hidden`.
        output_places: where the layers are that make its outputs; `None` for
            an output that no quantized layer makes.
        frozen: places of the layers inside that are not trainable.

    Returns:
        `layer`.
    """
    layer.__class__ = quantized_class(type(layer))
    with unlocked(layer):
        layer._attach(config)
        layer._build_quantizers()
    layer._attach_hidden(hidden, output_places, frozen)
    return layer


def quantize_in_place(layer, config):
    """Turns a built layer into its quantized look-alike."""
    layer.__class__ = quantized_class(type(layer))
    with unlocked(layer):
        layer._attach(config)
        layer._build_quantizers()


def _scope_of(layer):
    """The name scope in which the layer was built.

    So that quantizers have their layer's path, and no two variables the same.
    """
    parent, _, name = (layer.path or layer.name).rpartition("/")
    return keras.name_scope(name, override_parent=parent)


@contextlib.contextmanager
def unlocked(layer):
    """Inside, a built layer can be given parts."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            layer._lock_state()


keras.saving.register_keras_serializable("keras_saq", "Quantized")(Quantized)


def quantize_layer(layer, config):
    """An unbuilt quantized copy of a layer, without its weights.

    Args:
        layer: a float Keras layer.
        config: a `QuantizeConfig`.

    Returns:
        A layer of class `quantized_class(type(layer))`.

    Raises:
        ValueError: if `config` is no `QuantizeConfig`.

    Example:

    >>> import keras
    >>> from keras_saq import QuantizeConfig
    >>> from keras_saq.layers import quantize_layer
    >>> from keras_saq.quantizers import LSQ
    >>> config = QuantizeConfig({"kernel": LSQ(4, narrow_range=True)})
    >>> layer = quantize_layer(keras.layers.Dense(3), config)
    >>> isinstance(layer, keras.layers.Dense), type(layer).__name__
    (True, 'QuantizedDense')
    """
    if not isinstance(config, QuantizeConfig):
        raise ValueError(
            "`config` must be a `keras_saq.policy.QuantizeConfig`. "
            f"Received: {config!r}"
        )
    return Quantized.from_config({"layer": layer, "quantize": config})
