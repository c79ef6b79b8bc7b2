"""Training a quantized model without data: a generator against a student.

ZSAQ (Zero-shot Sharpness-Aware Quantization, arXiv 2310.13315) is known here
by its abstract and reviews: SAM on the quantized student, stochastic gradient
ascent on the generator (SAM-SGA), on what ZAQ does (arXiv 2103.15263, released
as FLIKM/ZAQ-code). This is a *reconstruction* of their union. With the float
network p, the student q, a generator G and noise z, in turns:

    5 x  q:  min  D(q(x), p(x)),            x = G(z), by SAQ's two passes
    1 x  G:  min  -D(q(G(z)), p(G(z))) - feature * mean |f(G(z))|
                  + statistics * L(G(z))

    D(a, b) = mean |a - b|    of logits

f is what the last layer of p reads (as in ZAQ). L, the distance from the
statistics of p's batch norms (see `keras_saq.reconstruction.data_free`), is
ours: it holds the generator near the training data. ZAQ's distance of relation
maps of intermediate features is left out.
"""

import dataclasses

import keras
import numpy as np
from keras import activations
from keras import ops

from keras_saq.layers import roles
from keras_saq.models.calibration import calibrate
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.calibration import uncalibrated_layers
from keras_saq.models.graph import Graph
from keras_saq.models.recording import calls_replaced
from keras_saq.models.recording import told_first
from keras_saq.models.wrapper import inner_model
from keras_saq.reconstruction.adam import adam
from keras_saq.reconstruction.compiled import compiled
from keras_saq.reconstruction.compiled import gradients_of
from keras_saq.reconstruction.data_free import batch_norms
from keras_saq.reconstruction.data_free import data_free
from keras_saq.reconstruction.data_free import input_shape
from keras_saq.reconstruction.data_free import seen
from keras_saq.reconstruction.data_free import statistics_loss
from keras_saq.reconstruction.generator import LATENT
from keras_saq.reconstruction.generator import make_generator
from keras_saq.sharpness import SAQModel

STUDENT_STEPS = 5
_FEATURE = 0.1
_GENERATOR_RATE = 1e-3


@dataclasses.dataclass
class ZeroShot:
    """What `zero_shot` did.

    Attributes:
        student: list by round of the student's mean D.
        generator: list by round of the generator's loss.
        make: function of a number that returns so many of its inputs.
    """

    student: list
    generator: list
    make: object


def zero_shot(
    q,
    model,
    rounds=300,
    rho=0.0,
    learning_rate=1e-4,
    batch_size=64,
    start=None,
    statistics=1.0,
    seed=0,
    verbose=1,
):
    """Trains a quantized model towards its float model, without any data.

    Batch norms keep the statistics and the weights that they have.

    Args:
        q: a model from `keras_saq.quantize_model`; it is trained, and
            calibrated if it was not.
        model: the float model, with batch norms, one input and one output.
        rounds: of five steps of the student and one of the generator each.
        rho: radius of SAQ's perturbation of the weights, in units of each
            layer's deviation; 0 is training without it. Where it was tried,
            on digits, it did not help: see docs/results.md.
        learning_rate: of the student, by Adam; it falls to 0 (cosine).
        batch_size: of the steps.
        start: inputs whose mean and deviation per channel the generator
            begins with; `None`: what `data_free` makes.
        statistics: weight of the batch norms' statistics.
        seed: of everything that is random; set for Keras too.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        A `ZeroShot`.

    Raises:
        ValueError: if `q` is not quantized, or `model` is none that
            `data_free` can be asked of, or has several outputs.

    Example:

    >>> import keras, keras_saq
    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3)(inputs)
    >>> x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    >>> x = keras.layers.GlobalAveragePooling2D()(x)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> found = keras_saq.reconstruction.zero_shot(
    ...     q, model, rounds=2, batch_size=4, verbose=0)
    >>> len(found.student), found.make(3).shape
    (2, (3, 8, 8, 3))
    """
    student = inner_model(q)
    _check(student, model)
    keras.utils.set_random_seed(seed)
    if start is None:
        start = data_free(model, 256, seed=seed, verbose=0)
    start = np.asarray(start, "float32")
    if uncalibrated_layers(student):
        calibrate(student, start)
    axes = tuple(range(start.ndim - 1))
    generator = make_generator(
        input_shape(model), start.mean(axes), start.std(axes) + 1e-6
    )
    logits = _logits_of(model)
    update = _generator_step(generator, student, model, logits, statistics)
    random = np.random.default_rng(seed)

    def noise(count):
        return random.normal(size=(count, LATENT)).astype("float32")

    with _norms_held(student):
        trainee = SAQModel(
            student,
            rho=rho,
            adaptive="layer",
            perturb=("weights",),
            batch_norm="neither",
        )
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, rounds * STUDENT_STEPS
        )
        trainee.compile(
            keras.optimizers.Adam(rate),
            loss=lambda y, z: ops.mean(ops.abs(y - logits(z)), axis=-1),
        )
        return _play(
            trainee,
            model,
            logits,
            generator,
            update,
            noise,
            rounds,
            batch_size,
            verbose,
        )


def _play(
    trainee, model, logits, generator, update, noise, rounds, size, verbose
):
    """The rounds."""
    values = [ops.copy(v.value) for v in generator.model.trainable_variables]
    state = values, *([ops.zeros_like(v) for v in values] for _ in range(2))
    make = compiled(lambda values, z: _made(generator, values, z))
    teach = compiled(lambda x: logits(model(x, training=False)))
    history, losses = [], []
    bar = keras.utils.Progbar(rounds, verbose=verbose, unit_name="round")
    for i in range(rounds):
        distances = []
        for _ in range(STUDENT_STEPS):
            x = make(state[0], noise(size))
            found = trainee.train_on_batch(x, teach(x), return_dict=True)
            distances.append(float(found["loss"]))
            trainee.reset_metrics()
        weights = [v.value for v in trainee.model.variables]
        *state, loss = update(*state, weights, noise(size), np.float32(i + 1))
        history.append(float(np.mean(distances)))
        losses.append(float(loss))
        bar.add(1)
    values = state[0]
    return ZeroShot(
        history,
        losses,
        lambda number: ops.convert_to_numpy(make(values, noise(number))),
    )


def _made(generator, values, noise):
    mapping = list(zip(generator.model.trainable_variables, values))
    with keras.StatelessScope(mapping):
        return ops.stop_gradient(generator(noise))


def _generator_step(generator, student, model, logits, statistics):
    """One step of Adam on the generator's weights."""
    norms = batch_norms(model)
    head = [
        site.operation
        for site in Graph(model).sites
        if roles.is_weighted(site.operation)
    ][-1]
    variables = generator.model.trainable_variables

    def step(values, means, squares, weights, noise, count):
        def loss(points):
            mapping = [*zip(variables, points)]
            mapping += zip(student.variables, weights)
            features = []

            def see(_, x):
                features.append(x)

            with keras.StatelessScope(mapping, collect_losses=True):
                x = generator(noise)
                with calls_replaced([(head, told_first(see, head, head.call))]):
                    expected, moments, met = seen(model, norms, x)
                received = student(x, training=False)
            return generator_loss(
                logits(expected),
                logits(received),
                features[0],
                statistics * statistics_loss(moments, met),
            )

        kept = []

        def told(points):
            kept.append(loss(points))
            return kept[0]

        gradients = gradients_of(told, values)
        made = [
            adam(v, m, s, g, count, _GENERATOR_RATE)
            for v, m, s, g in zip(values, means, squares, gradients)
        ]
        total = loss(values) if keras.backend.backend() == "jax" else kept[0]
        return *(list(part) for part in zip(*made)), total

    return compiled(step)


def generator_loss(expected, received, features, statistics):
    """What the generator minimises.

    Args:
        expected: logits of the float model.
        received: logits of the student.
        features: what the float model's last layer reads.
        statistics: the weighted distance from the batch norms' statistics.
    """
    distance = ops.mean(ops.abs(expected - received))
    return -distance - _FEATURE * ops.mean(ops.abs(features)) + statistics


def _logits_of(model):
    """Function from a model's outputs to logits, up to a common number."""
    last = Graph(model).sites[-1].operation
    if getattr(last, "activation", None) is not activations.softmax and not (
        isinstance(last, keras.layers.Softmax)
    ):
        return lambda y: y

    def logits(y):
        y = ops.log(ops.maximum(y, 1e-4))
        return y - ops.mean(y, axis=-1, keepdims=True)

    return logits


class _norms_held:
    """Inside, no batch norm of a model is trained or in training mode."""

    def __init__(self, model):
        self._norms = [
            n for n in model._flatten_layers() if roles.is_batch_norm(n)
        ]

    def __enter__(self):
        self._before = [n.trainable for n in self._norms]
        for norm in self._norms:
            norm.trainable = False

    def __exit__(self, *_):
        for norm, value in zip(self._norms, self._before):
            norm.trainable = value


def _check(student, model):
    if not quantized_layers(student):
        raise ValueError(
            "`zero_shot` trains a quantized model. Received: "
            f"'{student.name}', which has no quantized layer. Call it as "
            "`zero_shot(keras_saq.quantize_model(model, policy), model)`."
        )
    outputs = keras.tree.flatten(getattr(model, "outputs", None) or [])
    if len(outputs) != 1:
        raise ValueError(
            "`zero_shot` compares one output. Received: a model with "
            f"{len(outputs)} outputs known."
        )
