"""What quantizers with a trained scale have in common."""

import contextlib

import numpy as np
from keras import ops
from keras.src.backend.common import global_state

from keras_saq.quantizers.base import Quantizer
from keras_saq.quantizers.behind import scale_behind
from keras_saq.quantizers.initial_scale import RULES
from keras_saq.quantizers.initial_scale import check_rule
from keras_saq.quantizers.initial_scale import initial_scale as scale_from
from keras_saq.quantizers.silence import PATIENCE
from keras_saq.quantizers.silence import listen
from keras_saq.quantizers.silence import scale_of


class LearnedScale(Quantizer):
    """A quantizer that trains the logarithm of its scale.

    The scale stays positive whatever the optimizer does, and a step of the
    optimizer changes it by a factor; see `keras_saq.quantizers.fake_quant`.
    Where calibration found nothing but zeros, there is a second factor, which
    is not trained but follows the data; see `keras_saq.quantizers.silence`.

    Args:
        initial_scale: how calibration chooses the scale: `"mse"` (least
            squared error), `"lsq"` (that paper's rule), `"minmax"` (nothing
            is clipped), `"percentile"` (99.9 % are not clipped), `"dobi"`
            (2DQuant's shrinking bounds) or `"three_sigma"` (LSQ+'s rule).
        **kwargs: see `Quantizer`.
    """

    # The rules of `initial_scale` that make sense for the class.
    initial_scales = tuple(sorted(RULES))

    def __init__(
        self,
        num_bits=8,
        signed=True,
        narrow_range=False,
        channel_axes=(),
        group_size=None,
        initial_scale="mse",
        **kwargs,
    ):
        super().__init__(
            num_bits, signed, narrow_range, channel_axes, group_size, **kwargs
        )
        self.initial_scale = check_rule(initial_scale, self.initial_scales)

    def build_parameters(self, shape):
        self.log_scale = self.add_weight(
            name="log_scale", shape=shape, initializer="zeros", autocast=False
        )

    def build_listening(self):
        def add(name):
            return self.add_weight(
                name=name,
                shape=self.log_scale.shape,
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="mean",
            )

        self.log_growth = add("log_growth")
        self.steps_left = add("steps_left")

    @property
    def total_log_scale(self):
        """Logarithm of the scale: what is trained, and what it follows."""
        if self.listens:
            return self.log_scale.value + self.log_growth.value
        return self.log_scale.value

    @property
    def scale(self):
        return ops.exp(self.total_log_scale)

    @property
    def _follows_its_input(self):
        """Whether the scale is in units of what the quantizer receives."""
        return not getattr(self, "standardize", False)

    def initialize_behind(self, x, function):
        if self.initial_scale == "mse" and len(self.log_scale.shape) == 0:
            scale = float(ops.convert_to_numpy(self.scale))
            limits = self.qmin, self.qmax
            self.set_scale(scale_behind(x, function, *limits, scale))

    def start_listening(self, silent):
        if not self._follows_its_input:
            return
        if silent.any() and not self.listens:
            self._become_listener()
        if self.listens:
            silent = silent.reshape(self.log_scale.shape)
            self.log_growth.assign(np.zeros(silent.shape, "float32"))
            self.steps_left.assign(silent.astype("float32") * PATIENCE)

    def _become_listener(self):
        self.listens = True
        with _unlocked(self), _outside_of_scopes():
            self.build_listening()

    def hear(self, x):
        wanted = scale_of(self.granularity, x, self.qmax, self.signed)
        # Far less than any scale, and no underflow.
        wanted = ops.log(ops.maximum(wanted, 1e-30)) - self.log_scale.value
        growth, left = listen(
            self.log_growth.value,
            self.steps_left.value,
            ops.stop_gradient(wanted),
        )
        self.log_growth.assign(growth)
        self.steps_left.assign(left)

    def initialize_parameters(self, rows):
        scale = scale_from(rows, self.qmin, self.qmax, self.initial_scale)
        self.set_scale(scale.reshape(self.log_scale.shape))

    def set_scale(self, scale):
        """Sets the scale and marks the quantizer as calibrated."""
        if self.listens:
            self.start_listening(np.zeros(self.log_scale.shape, bool))
        self.log_scale.assign(np.log(np.asarray(scale, dtype="float32")))
        self.mark_calibrated()

    def load_own_variables(self, store):
        num_listening = 2
        difference = len(store.keys()) - len(self.variables)
        if difference == num_listening and not self.listens:
            self._become_listener()
        if difference == -num_listening and self.listens:
            # Saved where nothing was silent. They are the last variables.
            store = {key: store[key] for key in store.keys()}
            for variable in (self.log_growth, self.steps_left):
                store[f"{len(store)}"] = np.zeros(variable.shape, "float32")
        super().load_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "initial_scale": self.initial_scale}


@contextlib.contextmanager
def _outside_of_scopes():
    """Inside, new variables are real ones, whatever scope this is called in.

    In a stateless scope, such as the one in which a layer's weights read as
    quantized, Keras would wait with their values.
    """
    name = "stateless_scope"
    scope = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, scope)


@contextlib.contextmanager
def _unlocked(layer):
    """Inside, a built layer can be given variables."""
    was_locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if was_locked:
            layer._tracker.lock()
