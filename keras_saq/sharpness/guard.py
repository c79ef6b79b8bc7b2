"""A radius that is no neighbourhood any more is told."""

import math
import warnings

import keras

# How many times as large as the loss was at first.
LARGEST_FACTOR = 5.0


class AscentGuard(keras.callbacks.Callback):
    """Warns, once, of an epoch whose ascents go too far.

    SAQ asks how much the loss rises nearby. Where one ascent makes it many
    times as large, and a classifier guess, the second gradient is of another
    place. The measure is the loss of the epoch or, if that was larger, of the
    first one, and of a cross entropy at least that of guessing, log(classes):
    the radius that was best on few digits took 0.1 nats to 0.6 in its first
    epoch, and 0.0005 to 0.015 in its last.
    """

    def __init__(self):
        super().__init__()
        self._first = None
        self._told = False

    def on_epoch_begin(self, epoch, logs=None):
        self.model.training_state.ascent.assign([0.0, 0.0])

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        self._first = loss if self._first is None else self._first
        factor = self.model.ascent_factor
        if self._told or factor is None:
            return
        after = factor * loss
        largest = LARGEST_FACTOR * max(loss, self._first)
        if after <= max(largest, self._guessing()):
            return
        self._told = True
        warnings.warn(
            f"One ascent of SAQ made the loss {factor:.1f} times as large, in "
            f"the mean of epoch {epoch + 1}. Expected: at most "
            f"{LARGEST_FACTOR:g} times the loss of the first epoch, or what "
            "guessing makes; further away is no neighbourhood of the weights. "
            "Lower the radius, for example to "
            f"`rho={self._smaller(factor):.2g}`.",
            stacklevel=2,
        )

    def _guessing(self):
        """The cross entropy of equal probabilities; 0 of other losses."""
        loss = self.model.loss
        name = getattr(loss, "__name__", type(loss).__name__)
        name = loss if isinstance(loss, str) else name
        if "crossentropy" not in name.lower().replace("_", ""):
            return 0.0
        outputs = keras.tree.flatten(getattr(self.model, "outputs", None) or [])
        classes = outputs[0].shape[-1] if outputs else 2
        return math.log(max(classes or 2, 2))

    def _smaller(self, factor):
        """A radius with a factor of 2, if the loss rose in proportion."""
        rho = self.model.rho
        if callable(rho):
            rho = float(
                keras.ops.convert_to_numpy(rho(self.model.optimizer.iterations))
            )
        return rho / (factor - 1)


def with_callback(callbacks, callback):
    """What `fit` can be given as callbacks, with one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(c, type(callback)) for c in callbacks.callbacks):
            callback.set_model(callbacks.model)
            callbacks.callbacks.append(callback)
        return callbacks
    return [*keras.tree.flatten(callbacks or []), callback]
