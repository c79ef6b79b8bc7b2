"""A decision of the search: how many bits, as a softmax over candidates."""

import contextlib
import threading

import keras
import numpy as np
from keras import ops

_state = threading.local()
# Softmax of logits this far apart is exactly 0 and 1 in float32.
_CERTAIN = 1e4


class Clock(keras.layers.Layer):
    """How far a search is, and what depends on that.

    Args:
        start: temperature of every softmax at the beginning.
        end: the same at the end; in between it falls geometrically.

    Attributes:
        progress: scalar variable, from 0 to 1.
    """

    def __init__(self, start=1.0, end=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start, self.end = float(start), float(end)
        self.progress = self.add_weight(
            name="progress",
            shape=(),
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.built = True

    @property
    def temperature(self):
        ratio = float(np.log(self.end / self.start))
        return self.start * ops.exp(ratio * self.progress.value)

    def advance(self, step):
        """Adds a step, a fraction of the whole."""
        self.progress.assign(ops.minimum(self.progress.value + step, 1.0))


class Choice(keras.layers.Layer):
    """Trained probabilities of a few candidates.

    Every quantizer whose bits are the same decision has the same `Choice`.

    Args:
        bits: the candidates.
        clock: the `Clock` that has the temperature.

    Attributes:
        logits: trainable variable of shape `(candidates,)`.
    """

    def __init__(self, bits, clock, **kwargs):
        super().__init__(**kwargs)
        self.bits = tuple(bits)
        # All choices share one; it belongs to the trainer.
        self.__dict__["_clock"] = clock
        self.logits = self.add_weight(
            name="logits",
            shape=(len(self.bits),),
            initializer="zeros",
            autocast=False,
        )
        self.built = True

    def softmax(self):
        """The probabilities that the logits stand for."""
        if len(self.bits) == 1:
            return ops.ones((1,), "float32")
        return ops.softmax(self.logits.value / self._clock.temperature)

    def probabilities(self):
        """Tensor of shape `(candidates,)`: the scope's, or `softmax()`."""
        given = getattr(_state, "probabilities", None) or {}
        found = given.get(id(self))
        return self.softmax() if found is None else found

    def decide(self, index):
        """Makes one candidate certain."""
        logits = np.full(len(self.bits), -_CERTAIN, "float32")
        logits[index] = 0.0
        self.logits.assign(logits)


@contextlib.contextmanager
def probability_scope(choices, probabilities):
    """Inside, choices have the given probabilities.

    Local to the thread, and entered where a step is traced.

    Args:
        choices: list of `Choice`.
        probabilities: a tensor for each.
    """
    previous = getattr(_state, "probabilities", None)
    _state.probabilities = {
        id(choice): p for choice, p in zip(choices, probabilities, strict=True)
    }
    try:
        yield
    finally:
        _state.probabilities = previous
