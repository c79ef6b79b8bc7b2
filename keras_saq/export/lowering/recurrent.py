"""LSTM, GRU and SimpleRNN, step by step: an island with integer weights.

The model trains with float gates and states, and so does the file compute
them. The kernels are the quantized ones, stored as codes; each step of the
sequence, whose length is fixed, is some float kernels.
"""

import keras
import numpy as np
from keras import ops

from keras_saq.export.lowering import activations
from keras_saq.export.lowering.builder import IN_FLOAT
from keras_saq.export.lowering.builder import MAY_DIFFER
from keras_saq.export.lowering.moves import join
from keras_saq.layers import Quantized
from keras_saq.layers import roles


def obstacle(site):
    """Why a recurrent layer cannot be written step by step, or `None`."""
    layer = site.operation
    if layer.stateful:
        return "stateful=True keeps a state between calls"
    if len(site.inputs) not in (1, 1 + _num_states(layer)):
        return "it is given a part of an initial state"
    if roles.family(layer) == "gru" and not layer.reset_after:
        return "reset_after=False multiplies before the recurrent kernel"
    for function in _functions(layer):
        if activations.of_function(function) is None:
            return "no float kernel is known for its activation"
    return None


def _num_states(layer):
    return 2 if roles.family(layer) == "lstm" else 1


def _functions(layer):
    cell = layer.cell
    functions = [cell.activation]
    if roles.family(layer) != "simple_rnn":
        functions.append(cell.recurrent_activation)
    return functions


def lower(builder, site, inputs):
    """The float tensors that the layer returns."""
    layer, (source, *state) = site.operation, inputs
    what = getattr(layer, "_float_class", type(layer)).__name__
    builder.islands.append(
        (
            site.path,
            f"the state of {what} {IN_FLOAT}, with quantized weights; "
            f"{MAY_DIFFER}",
        )
    )
    return _Unrolled(builder, site.path, layer).run(source, state)


class _Unrolled:
    def __init__(self, builder, path, layer):
        self._builder = builder
        self._path = path
        self._layer = layer
        self._cell = layer.cell
        self._units = layer.units
        self._kernels = {}

    def run(self, source, initial=()):
        source = self._builder.in_float(source, self._path)
        initial = [self._builder.in_float(t, self._path) for t in initial]
        cell, layer = self._cell, self._layer
        bias = _array(cell.bias) if cell.use_bias else None
        recurrent_bias = None
        if bias is not None and bias.ndim == 2:
            bias, recurrent_bias = bias  # a GRU has one on each side
        step = {
            "lstm": self._lstm,
            "gru": self._gru,
            "simple_rnn": self._simple,
        }[roles.family(layer)]
        length = source.shape[0]
        width = cell.kernel.shape[1]
        projected = self._dense(source, "kernel", bias, (length, width))
        times = range(length)
        if layer.go_backwards:
            times = reversed(times)
        state, outputs = (*initial, None, None)[:2], []
        for time in times:
            x = self._slice(projected, (time, 0), (1, width))
            x = self._builder.reshape(x, (width,), self._path)
            state = step(x, state, recurrent_bias)
            outputs.append(state[0])
        result = outputs[-1]
        if layer.return_sequences:
            parts = [
                self._builder.reshape(h, (1, self._units), self._path)
                for h in outputs
            ]
            result = join(self._builder, parts, 1, self._path)
        if not layer.return_state:
            return [result]
        return [result, *(t for t in state if t is not None)]

    # --- One step each; the state is (output, carry)

    def _lstm(self, x, state, _):
        h, carry = state
        if h is not None:
            x = self._add(x, self._dense(h, "recurrent_kernel"))
        i, f, g, o = self._split(x, 4)
        i, o = self._gate(i), self._gate(o)
        g = self._apply(self._cell.activation, g)
        new = self._multiply(i, g)
        if carry is not None:
            new = self._add(self._multiply(self._gate(f), carry), new)
        h = self._multiply(o, self._apply(self._cell.activation, new))
        return h, new

    def _gru(self, x, state, recurrent_bias):
        h, _ = state
        if recurrent_bias is None:
            recurrent_bias = np.zeros(3 * self._units, np.float32)
        if h is None:
            inner = [
                self._builder.constant(f"{self._path}/start", part)
                for part in np.split(recurrent_bias, 3)
            ]
        else:
            inner = self._dense(h, "recurrent_kernel", recurrent_bias)
            inner = self._split(inner, 3)
        parts = self._split(x, 3)
        update = self._gate(self._add(parts[0], inner[0]))
        reset = self._gate(self._add(parts[1], inner[1]))
        new = self._add(parts[2], self._multiply(reset, inner[2]))
        new = self._apply(self._cell.activation, new)
        one = self._builder.constant(
            f"{self._path}/one", np.ones(1, np.float32)
        )
        rest = self._builder.compute("subtract", [one, update], self._path)
        new = self._multiply(rest, new)
        if h is not None:
            new = self._add(self._multiply(update, h), new)
        return new, None

    def _simple(self, x, state, _):
        h, _ = state
        if h is not None:
            x = self._add(x, self._dense(h, "recurrent_kernel"))
        return self._apply(self._cell.activation, x), None

    # --- Kernels

    def _gate(self, x):
        return self._apply(self._cell.recurrent_activation, x)

    def _apply(self, function, x):
        return activations.of_function(function)(self._builder, x, self._path)

    def _add(self, a, b):
        return self._builder.compute("add", [a, b], self._path)

    def _multiply(self, a, b):
        return self._builder.compute("multiply", [a, b], self._path)

    def _slice(self, source, begin, shape):
        options = {"begin": begin}
        return self._builder.move("slice", source, shape, self._path, options)

    def _split(self, x, count):
        return [
            self._slice(x, (i * self._units,), (self._units,))
            for i in range(count)
        ]

    def _dense(self, x, name, bias=None, shape=None):
        """x times a kernel of the cell, which the file holds once."""
        if name not in self._kernels:
            self._kernels[name] = self._kernel(name)
        kernel = self._kernels[name]
        if bias is None:
            width = getattr(self._cell, name).shape[1]
            bias = np.zeros(width, np.float32)
        if shape is None:
            shape = (len(bias),)
        bias = self._builder.constant(f"{self._path}/bias", bias)
        output = self._builder.tensor(f"{self._path}/{name}", shape)
        return self._builder.emit(
            "fully_connected", [x, kernel, bias], output, self._path
        )

    def _kernel(self, name):
        layer, cell = self._layer, self._cell
        quantizer = None
        if isinstance(layer, Quantized):
            quantizer = layer.quantize_config.weights.get(f"cell.{name}")
        variable = getattr(cell, name)
        name = f"{self._path}/{name}"
        if quantizer is None:
            return self._builder.constant(f"{name}/weights", _array(variable).T)
        bits = 8
        if self._builder.storage == "small":
            bits = next(b for b in (2, 4, 8) if quantizer.code_bits <= b)
        constant = self._builder.constant(
            f"{name}/weights",
            quantizer.codes(variable).T,
            ops.convert_to_numpy(quantizer.scale).reshape(-1),
            num_bits=bits,
        )
        return self._builder.in_float(constant, self._path)


def _array(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
