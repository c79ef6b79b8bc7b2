"""A model in which every group has all of its candidate bits at once.

Weights are shared: each layer has one latent kernel, and reads the mixture
`sum_b p_b Q_b(kernel)` (EdMIPS), so there is one convolution per layer. The
mixtures stand where `quantize_model` puts quantizers, so any Keras model can
be searched that can be quantized.
"""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_saq.models.bits import next_to_outputs
from keras_saq.models.calibration import calibrate
from keras_saq.models.copy import quantized_copy
from keras_saq.models.plan import is_oriented
from keras_saq.models.statistics import average_statistics
from keras_saq.policy import layer_paths
from keras_saq.search.choice import Choice
from keras_saq.search.choice import Clock
from keras_saq.search.mixture import Mixture

_STEEPEST = 16.0
_BISECTIONS = 20


class Supernet:
    """The quantized model of a search space, with mixtures in it.

    Args:
        space: a `SearchSpace` that no other supernet was made of.
        calibration: data for the first scales, see `keras_saq.calibrate`.
        start_temperature: of the softmax, at the beginning.
        end_temperature: of the softmax, at the end.

    Attributes:
        model: the Keras model; `space.model` is not changed.
        choices: list of `Choice`, one for each group of the space.
        clock: the `Clock` that the choices follow.
        head: the last layer with weights.

    Example:

    >>> import keras, numpy as np
    >>> from keras_saq.search import SearchSpace, Supernet
    >>> model = keras.Sequential(
    ...     [keras.Input((4,))] + [keras.layers.Dense(4) for _ in range(3)]
    ... )
    >>> space = SearchSpace(model, (2, 4), target="paper")
    >>> supernet = Supernet(space, np.eye(4, dtype="float32"))
    >>> len(supernet.choices)  # the weights and the input of the middle layer
    2
    """

    def __init__(
        self,
        space,
        calibration=None,
        start_temperature=1.0,
        end_temperature=1.0,
    ):
        self.space = space
        self.clock = Clock(start_temperature, end_temperature, name="clock")
        self.choices = [
            Choice(group.bits, self.clock, name=f"choice_{i}")
            for i, group in enumerate(space.groups)
        ]
        self._put_mixtures()
        self.model = quantized_copy(space.model, space.plan)
        self._features = None
        self.head = self._tap_head()
        if calibration is not None:
            calibrate(self.model, calibration)

    def _put_mixtures(self):
        plan, replaced = self.space.plan, {}
        configs = {id(c): c for c in plan.configs.values()}.values()
        for site in self.space.sites:
            if site.weights is not None:
                config = plan.configs[id(site.layer)]
                for name, quantizer in config.weights.items():
                    oriented = [
                        bits
                        for bits in self.choices[site.weights].bits
                        if is_oriented(site.layer, name, bits)
                    ]
                    config.weights[name] = self._mixture(
                        site.weights, quantizer, oriented
                    )
        # Those at a layer's input may come to know the one before them, so
        # the others first.
        for field in ("outputs", "inputs"):
            for config in configs:
                quantizer = getattr(config, field)
                group = self.space.quantizers.get(id(quantizer))
                if quantizer is not None and group is not None:
                    mixture = self._mixture(group, quantizer)
                    replaced[id(quantizer)] = mixture
                    setattr(config, field, mixture)
        for site in self.space.sites:
            if site.inputs is None:
                continue
            config = plan.configs.get(id(site.layer))
            if config is not None and isinstance(config.inputs, Mixture):
                already = self.space.already_quantized(site.site)
                config.inputs.__dict__["_already"] = already

    def _mixture(self, group, quantizer, oriented=()):
        if isinstance(quantizer, Mixture):
            return quantizer  # of a layer that is called twice
        if self.choices[group].bits == (quantizer.num_bits,):
            return quantizer
        return Mixture(
            self.choices[group],
            signed=quantizer.signed,
            # What has all codes now has candidates that do not.
            narrow_range=quantizer.narrow_range
            or getattr(quantizer, "oriented", False),
            channel_axes=quantizer.channel_axes,
            oriented=oriented,
            name=quantizer.name,
        )

    def _tap_head(self):
        """Lets the last layer with weights tell what it read."""
        graph = self.space.plan.graph
        last = next_to_outputs(graph)
        path = [s.path for s in graph.sites if id(s.operation) in last][-1]
        head = dict(layer_paths(self.model))[path]
        float_call = head.call

        def call(inputs, *args, **kwargs):
            self._features = inputs
            return float_call(inputs, *args, **kwargs)

        head.call = call
        return head

    def take_features(self):
        """What the head read in the latest call of the model."""
        features, self._features = self._features, None
        return features

    def probabilities(self):
        """NumPy: the probabilities of each group's candidates."""
        return [ops.convert_to_numpy(c.softmax()) for c in self.choices]

    def start_at(self, limits):
        """Sets logits whose expected costs meet the limits.

        All groups alike: `logit(b) = -t * b`, the distribution of largest
        entropy for an expected number of bits, with the smallest t that does.
        A search that starts beyond its budget would spend its first part on
        taking bits from every group alike.

        Args:
            limits: list of `keras_saq.search.budget.Limit`.
        """

        def over(tilt):
            given = []
            for choice in self.choices:
                p = np.exp(-tilt * (np.array(choice.bits) - 2.0))
                given.append(ops.convert_to_tensor(p / p.sum(), "float32"))
            return any(
                float(limit.cost.expected(given)) > limit.limit
                for limit in limits
            )

        low, high = 0.0, _STEEPEST
        if not over(low):
            high = low
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if over(middle) else (low, middle)
        for choice in self.choices:
            choice.logits.assign(-high * (np.array(choice.bits) - 2.0))

    @contextlib.contextmanager
    def decided(self, assignment):
        """Inside, the candidates of an assignment are certain."""
        before = [np.copy(ops.convert_to_numpy(c.logits)) for c in self.choices]
        try:
            for choice, index in zip(self.choices, assignment, strict=True):
                choice.decide(index)
            yield self.model
        finally:
            for choice, logits in zip(self.choices, before):
                choice.logits.assign(logits)

    @contextlib.contextmanager
    def own_statistics(self, batches):
        """Inside, batch norms have the statistics of the decided bits.

        Those of training are of the mixture, which no candidate has.

        Args:
            batches: list of batches of inputs, over which statistics are
                averaged.
        """
        norms = [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        before = [(norm, norm.trainable) for norm in norms]
        variables = [v for norm in norms for v in norm.non_trainable_variables]
        values = [np.copy(ops.convert_to_numpy(v)) for v in variables]
        try:
            for norm in norms:
                norm.trainable = True
            if norms:
                inputs = map(ops.convert_to_tensor, batches)
                average_statistics(self.model, norms, inputs)
            for norm, trainable in before:
                norm.trainable = trainable
            yield
        finally:
            for norm, trainable in before:
                norm.trainable = trainable
            for variable, value in zip(variables, values):
                variable.assign(value)
