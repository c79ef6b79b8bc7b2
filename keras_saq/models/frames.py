"""The calls of a causal model, made again on frames and states."""

import copy

import keras
from keras import layers
from keras import tree

from keras_saq.layers import roles
from keras_saq.layers.quantized import quantize_layer
from keras_saq.models.graph import Graph
from keras_saq.policy import QuantizeConfig

# States of each kind of layer.
_RECURRENT = {"gru": 1, "lstm": 2, "simple_rnn": 1}
_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D)


def refusal(site, reason):
    """Why a site does not stream, and what does."""
    return (
        f"'{site.path}' ({type(roles.unwrap(site.operation)).__name__}) "
        f"cannot be computed frame by frame: {reason}. What streams are causal "
        "convolutions, zero paddings in front of the time axis, recurrent "
        "layers that run forward, and what treats every frame alike. Leave it "
        "out of the model that streams, and run it on what that makes."
    )


class Steps:
    """The calls of a model, made again on frames and states.

    Args:
        model: a model of one's own; layers in it are changed.
        frames: per step.
    """

    def __init__(self, model, frames):
        self._graph = Graph(model)
        self._frames = frames
        self._states, self._new_states = [], []
        (source,) = self._graph.inputs
        given = keras.Input(
            (frames, *source.shape[2:]), name=source.name, dtype=source.dtype
        )
        self._tensors = {source: given}
        for site in self._graph.sites:
            try:
                made = self._make(site)
            except (ValueError, TypeError, NotImplementedError) as error:
                raise ValueError(refusal(site, str(error))) from error
            self._tensors.update(zip(site.outputs, tree.flatten(made)))
        outputs = [self._tensors[value] for value in self._graph.outputs]
        self.model = keras.Model(
            [given, *self._states],
            [*outputs, *self._new_states],
            name=f"{model.name}_step",
        )

    def _make(self, site):
        """What a site makes of frames and states."""
        if not site.inputs:
            return site.operation(*site.call.args, **site.call.kwargs)
        layer = roles.unwrap(site.operation)
        family = roles.family(site.operation)
        if getattr(layer, "padding", None) == "causal":
            return self._convolve(site)
        if isinstance(layer, _PADDING) and _before(layer):
            return self._pad(site, layer)
        if family in _RECURRENT:
            return self._recur(site, _RECURRENT[family])
        if isinstance(layer, layers.Reshape):
            return self._reshape(site)
        tensors = iter([self._tensors[value] for value in site.inputs])

        def fill(argument):
            if isinstance(argument, keras.KerasTensor):
                return next(tensors)
            return argument

        args, kwargs = tree.map_structure(
            fill, (site.call.args, dict(site.call.kwargs))
        )
        return site.operation(*args, **kwargs)

    def _convolve(self, site):
        """On the frames before, and these: no padding is left to be done."""
        layer = site.operation
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        x = self._tensors[site.inputs[0]]
        if before:
            quantizer = None
            if getattr(layer, "input_quantizer", None) is None:
                quantizer = self._grid_of(site.inputs[0])
            x = self._remembered(site, x, before, quantizer)
        return _copy_with(layer, x.shape, padding="valid")(x)

    def _pad(self, site, layer):
        """Zeros are in front of the first frames only."""
        before, after = _pairs(layer.padding)[0]
        if after:
            raise ValueError("it pads behind the last frame")
        x, name = self._tensors[site.inputs[0]], site.operation.name
        quantizer = getattr(site.operation, "input_quantizer", None)
        if quantizer is not None:
            x = _on_grid(quantizer, f"{name}_input")(x)
        quantizer = quantizer or self._grid_of(site.inputs[0])
        x = self._remembered(site, x, before, quantizer)
        rest = _pairs(layer.padding)[1:]
        if not any(map(any, rest)):
            return x
        return layers.ZeroPadding2D(((0, 0), *rest))(x)

    def _remembered(self, site, x, before, quantizer):
        """The frames of a state, on the grid of theirs, and those of a step."""
        state = known = self._state((before, *x.shape[2:]), site)
        if quantizer is not None:
            known = _on_grid(quantizer, f"{site.operation.name}_state")(state)
        x = layers.Concatenate(axis=1)([known, x])
        self._keep(x[:, -before:])
        return x

    def _keep(self, tensor):
        """Makes a tensor the new value of the next state that has none."""
        state = self._states[len(self._new_states)]
        name = f"next_{state.name}"
        self._new_states.append(layers.Identity(name=name)(tensor))

    def _grid_of(self, value):
        """The quantizer whose codes a value holds, or `None`."""
        while value.producer is not None:
            operation = value.producer.operation
            quantizer = getattr(operation, "output_quantizer", None)
            if quantizer is not None:
                return quantizer
            if not roles.keeps_grid(operation):
                return None
            value = value.producer.inputs[0]
        return None

    def _reshape(self, site):
        """With the step's number of frames, where it has the model's."""
        layer, x = site.operation, self._tensors[site.inputs[0]]
        time, *rest = layer.target_shape
        if time == site.inputs[0].shape[1]:
            shape = (x.shape[1], *rest)
            layer = _copy_with(layer, x.shape, target_shape=shape)
        return layer(x)

    def _recur(self, site, number):
        layer = site.operation
        if layer.go_backwards or len(site.inputs) != 1:
            raise ValueError("it runs backwards, or has an initial state")
        states = [self._state((layer.units,), site) for _ in range(number)]
        returns = layer.return_state
        x = self._tensors[site.inputs[0]]
        quantizer = getattr(layer, "output_quantizer", None)
        bare = _copy_with(layer, x.shape, return_state=True)
        made = list(bare(x, initial_state=states))
        # Of the state nothing is quantized in the whole model.
        if quantizer is not None:
            made[0] = _on_grid(quantizer, f"{layer.name}_output")(made[0])
        for tensor in made[1:]:
            self._keep(tensor)
        return made if returns else made[:1]

    def _state(self, shape, site):
        number = len(self._states)
        state = keras.Input(shape, name=f"state_{number}_{site.operation.name}")
        self._states.append(state)
        return state


def _copy_with(layer, shape, **settings):
    """A layer with other settings and the same weights and scales.

    One that returns its state has no quantizer at its outputs.
    """
    config = layer.get_config()
    float_config = config
    if "layer" in config:
        float_config = config["layer"]["config"]
        if settings.get("return_state"):
            config["quantize"]["config"]["outputs"] = None
    float_config.update(settings)
    made = type(layer).from_config(config)
    made.build(shape)
    values = {_inside(layer, v): v for v in layer.variables}
    for variable in made.variables:
        place = _inside(made, variable)
        if place in values:  # a seed has another name
            variable.assign(values[place])
    return made


def _inside(layer, variable):
    """The path of a variable, without that of the models around a layer."""
    return variable.path.rpartition(f"{layer.name}/")[2]


def _before(layer):
    return _pairs(layer.padding)[0][0]


def _pairs(sizes):
    """A pair before and behind per axis; of a layer for sequences, one."""
    return (sizes,) if isinstance(sizes[0], int) else sizes


def _on_grid(quantizer, name):
    """A layer that gives a state back the codes that it has."""
    config = QuantizeConfig(outputs=copy.deepcopy(quantizer))
    return quantize_layer(layers.Identity(name=name), config)
