"""A radius that is no neighbourhood any more is told."""

import warnings

import keras

# So many times as large as the loss was at first.
LARGEST_FACTOR = 3.0
# Cross entropies below this, in nats, are small however steep the ascent.
SMALL_CROSS_ENTROPY = 0.5


class AscentGuard(keras.callbacks.Callback):
    """Warns, once, of an epoch whose ascents go too far.

    SAQ asks how much the loss rises nearby. Where one ascent makes it several
    times as large, the second gradient is of another place. The measure is
    the loss of the epoch or, if that was larger, of the first one: late in
    training, when the loss is almost 0, a large ratio is no sign of a large
    radius. Measured on digits: ascents from 0.03 to 0.16 nats helped.
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
        small = SMALL_CROSS_ENTROPY if self._is_cross_entropy() else 0.0
        if after <= max(LARGEST_FACTOR * max(loss, self._first), small):
            return
        self._told = True
        warnings.warn(
            f"One ascent of SAQ made the loss {factor:.1f} times as large, in "
            f"the mean of epoch {epoch + 1}. Expected: at most "
            f"{LARGEST_FACTOR:g} times the loss of the first epoch; what is "
            "further is no neighbourhood of the weights. Lower the radius, "
            f"for example to `rho={self._smaller(factor):.2g}`.",
            stacklevel=2,
        )

    def _is_cross_entropy(self):
        loss = self.model.loss
        name = loss if isinstance(loss, str) else type(loss).__name__
        if callable(loss) and hasattr(loss, "__name__"):
            name = loss.__name__
        return "crossentropy" in name.lower().replace("_", "")

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
