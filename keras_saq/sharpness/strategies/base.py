"""The interface of a strategy, and the full one: two passes every step."""

import fractions

import keras


class Strategy:
    """Decides which passes a training step makes.

    To write one, implement `step` with `keras.ops` and register the class
    with `keras.saving.register_keras_serializable`. Shapes must not depend on
    values and branches on values must be `keras.ops.cond`, so that the step
    is compiled once.

    Example, the second pass with the mean of both gradients:

    >>> import keras, keras_saq
    >>> from keras_saq.sharpness.strategies import Strategy
    >>> @keras.saving.register_keras_serializable("doc")
    ... class Mean(Strategy):
    ...     cost = 2.0
    ...
    ...     def step(self, step):
    ...         clean = step.clean()
    ...         perturbed = step.perturbed(step.perturbation(clean), clean)
    ...         pairs = zip(clean.gradients, perturbed.gradients)
    ...         gradients = [(a + b) / 2 for a, b in pairs]
    ...         return step.outcome(gradients, clean, clean)
    >>> inputs = keras.Input((4,))
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    >>> saq = keras_saq.SAQModel(model, rho=0.1, strategy=Mean())
    >>> saq.compile("sgd", "mse")
    >>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
    >>> losses = saq.fit(x, y, epochs=2, verbose=0).history["loss"]
    >>> losses[1] < losses[0]
    True
    """

    @property
    def cost(self):
        """Expected cost of a step in plain steps (forward and backward)."""
        raise NotImplementedError

    def build(self, training_state, variables):
        """Makes the variables that the strategy keeps between steps.

        Args:
            training_state: the layer that holds them.
            variables: the trainable variables of the model.
        """

    def begin(self, first, last):
        """Called when `fit` begins, before the first step.

        Args:
            first: the optimizer's update count at the first epoch of `fit`,
                also where it goes on from a later one.
            last: the count when all epochs are done; `None` where that is
                not known.
        """

    def trajectory_loss(self, y_pred, targets, sample_weight):
        """What is added to the loss where a batch has `trajectory` targets.

        Args:
            y_pred: predictions, a tensor or a structure of them.
            targets: what the strategy put into the batch.
            sample_weight: one weight per sample, or `None`.
        """
        raise NotImplementedError

    def step(self, step):
        """Makes a training step.

        Args:
            step: a `keras_saq.sharpness.step.Step`.

        Returns:
            `step.outcome(...)`.
        """
        raise NotImplementedError

    def get_config(self):
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config):
        """A strategy from its configuration."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(
            f"{k}={v!r}" for k, v in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable("keras_saq")
class Full(Strategy):
    """Both passes, every step: SAM (arXiv 2010.01412) and SAQ as published.

    With the plain gradient g and the one at the perturbed weights g_s:

        gradient = (1 - mix) g_s + mix g

    `mix=0` is what the papers say and what SAQ's first code does. In the
    authors' code for Transformers (liujingcs/Q-ViT-DeiT) gradients are not
    cleared between the passes, so that they add up: `mix=0.5` is its
    direction, at half of its length.

    Cost: 2.

    Args:
        mix: share of the plain gradient, at least 0 and below 1.

    Example:

    >>> from keras_saq.sharpness.strategies import Full
    >>> Full(mix=0.5).cost
    2.0
    """

    cost = 2.0

    def __init__(self, mix=0.0):
        self.mix = check_mix(mix)

    def step(self, step):
        clean = step.clean()
        eps = step.perturbation(clean)
        perturbed = step.perturbed(eps, clean)
        return step.outcome(
            mixed(clean.gradients, perturbed.gradients, self.mix),
            clean,
            clean,
            step.statistics(perturbed),
            ascent=(clean.loss, perturbed.loss),
        )

    def get_config(self):
        return {"mix": self.mix}


@keras.saving.register_keras_serializable("keras_saq")
class Plain(Strategy):
    """No second pass: training as `fit` of the model inside does it.

    What else an `SAQModel` offers (distillation, a learning rate for the
    scales, batches that are not finite) is there for plain training too.
    `rho` has no effect.

    Cost: 1.

    Example:

    >>> from keras_saq.sharpness.strategies import Plain
    >>> Plain().cost
    1.0
    """

    cost = 1.0

    def step(self, step):
        clean = step.clean()
        return step.outcome(clean.gradients, clean, clean)


def check_period(k):
    """Returns `k` as an int, or raises if it is not at least 1."""
    if isinstance(k, bool) or int(k) != k or k < 1:
        raise ValueError(
            "`k`, the number of steps between two full ones, must be an "
            f"integer of at least 1. Received: k={k!r}"
        )
    return int(k)


def check_mix(mix):
    """Returns `mix` as a float, or raises if it is not in [0, 1)."""
    if isinstance(mix, bool) or not 0 <= mix < 1:
        raise ValueError(
            "`mix`, the share of the plain gradient, must be at least 0 and "
            f"below 1. Received: mix={mix!r}"
        )
    return float(mix)


def mixed(plain, sharp, mix):
    """(1 - mix) * sharp + mix * plain, of lists of tensors and `None`."""
    if not mix:
        return sharp
    return [
        b if a is None else a if b is None else (1 - mix) * b + mix * a
        for a, b in zip(plain, sharp)
    ]


def share_of(size, share):
    """ceil(share * size), for an integer or a scalar integer tensor."""
    # Integers only: XLA then knows the result when it compiles.
    share = fractions.Fraction(share).limit_denominator(1000)
    return -((-size * share.numerator) // share.denominator)


def check_share(name, value):
    """Returns `value` as a float, or raises if it is not in (0, 1]."""
    if isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError(
            f"`{name}` must be above 0 and at most 1. "
            f"Received: {name}={value!r}"
        )
    return float(value)
