"""The optimizer of a supernet: Adam for weights, something else for bits.

The logits of all choices are pulled by two forces, the loss of the task and
the cost, and where they end is where the forces balance. Adam would divide
each by its own size, and would still remember the first steps, when the cost
is far over the budget, long after it is met. So logits take steps of gradient
descent with momentum, in units of one common running norm:

    v  <- 0.99 v + 0.01 mean of g^2 over all logits
    m  <- 0.9 m + 0.1 g
    logits <- logits - rate * m / sqrt(v)          (v without its bias)
"""

import keras
from keras import ops

_DECAY = 0.99
_SMALLEST = 1e-12


class SearchAdam(keras.optimizers.Adam):
    """Adam; logits have one common norm, and a learning rate of their own.

    Args:
        learning_rate: of weights and scales.
        logit_factor: learning rate of logits, in units of the other.
        **kwargs: of Adam.
    """

    def __init__(self, learning_rate=1e-3, logit_factor=20.0, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.logit_factor = float(logit_factor)
        self._logit_keys = set()

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._logit_keys = {
            self._var_key(v) for v in variables if v.name == "logits"
        }
        self._logit_square = self.add_variable(
            shape=(), name="logit_square", initializer="zeros"
        )

    def apply(self, grads, trainable_variables=None):
        variables = trainable_variables
        if variables is None:
            variables = self._trainable_variables
        else:
            self.build(list(variables))
        found = [
            ops.cast(g, "float32")
            for g, v in zip(grads, variables)
            if g is not None and self._var_key(v) in self._logit_keys
        ]
        if found:
            count = sum(g.shape[0] for g in found)
            square = sum(ops.sum(ops.square(g)) for g in found) / count
            old = self._logit_square.value
            self._logit_square.assign(_DECAY * old + (1 - _DECAY) * square)
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        if self._var_key(variable) not in self._logit_keys:
            super().update_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, "float32") * self.logit_factor
        steps = ops.cast(self.iterations.value + 1, "float32")
        square = self._logit_square.value / (1 - _DECAY**steps)
        momentum = self._momentums[self._get_variable_index(variable)]
        self.assign_add(
            momentum, (gradient - momentum.value) * (1 - self.beta_1)
        )
        step = rate * momentum.value / ops.sqrt(square + _SMALLEST)
        self.assign_sub(variable, step)

    def get_config(self):
        return {**super().get_config(), "logit_factor": self.logit_factor}
