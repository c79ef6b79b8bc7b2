"""From a float model and a proxy to a trained supernet."""

import keras
import numpy as np
from keras import ops

from keras_saq.search import head
from keras_saq.search import trainer as trainers
from keras_saq.search.checkpoint import ProbabilityHistory
from keras_saq.search.checkpoint import Recorder
from keras_saq.search.checkpoint import SearchCheckpoint
from keras_saq.search.margin import LargeMargin
from keras_saq.search.margin import class_rows
from keras_saq.search.margin import normalized_features
from keras_saq.search.optimizer import SearchAdam
from keras_saq.search.supernet import Supernet

_NUM_CALIBRATION = 256
_ADAPTATION_RATE = 1e-3
# Sum of the learning rates of logits, before the cosine halves it.
_LOGIT_TRAVEL = 10.0
_LARGEST_LOGIT_RATE = 0.1
_BATCH = 256


def make_supernet(search):
    """The calibrated `Supernet` of a `PolicySearch`; sets its loss.

    A model that was given a new head for the proxy's classes is first trained
    in float for `search.adapt_epochs`.
    """
    model = search.proxy_model()
    if search.loss is None:
        search.loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=not head.is_normalized(model)
        )
    search.loss = keras.losses.get(search.loss)
    if model is not search.model and search.adapt_epochs:
        model.compile(
            keras.optimizers.Adam(_ADAPTATION_RATE),
            search.loss,
            metrics=_metrics(search),
            jit_compile=keras.backend.backend() == "jax",
        )
        model.fit(
            search.batches(),
            epochs=search.adapt_epochs,
            shuffle=False,
            verbose=search.verbose,
        )
    space = search.space.on(model)
    _check_same(search.space, space)
    rng = np.random.default_rng(search.seed)
    chosen = rng.permutation(len(search.proxy.x))[:_NUM_CALIBRATION]
    return Supernet(space, search.proxy.x[chosen], *search.temperature)


def train(search, supernet, with_margin, sample):
    """Trains weights, scales and, unless `sample`, the logits.

    Args:
        search: the `PolicySearch`; its `history` and `probabilities` are set.
        supernet: its `Supernet`.
        with_margin: whether the loss has the margin term.
        sample: whether each step draws one candidate per group.
    """
    for choice in supernet.choices:
        choice.trainable = not sample
    supernet.start_at([] if sample else search.limits)
    margin = make_margin(search, supernet) if with_margin else None
    model = compiled(
        search, supernet, search.limits, search.epochs, margin, sample
    )
    probabilities = ProbabilityHistory(supernet, search.log_dir)
    callbacks, done = [probabilities], 0
    if search.checkpoint is not None:
        saver = SearchCheckpoint(search.checkpoint, search.settings())
        done, state = saver.restore(model)
        search.history = state.get("history", {})
        probabilities.epochs = state.get("probabilities", [])
        saver.state = {
            "history": search.history,
            "probabilities": probabilities.epochs,
        }
        callbacks.append(saver)
    callbacks.insert(0, Recorder(search.history))
    if done < search.epochs:
        model.fit(
            search.batches(done),
            epochs=search.epochs,
            initial_epoch=done,
            shuffle=False,
            verbose=search.verbose,
            callbacks=callbacks,
            reestimate_batch_norm=False,
        )
    search.probabilities = probabilities.epochs


def train_logits(search, supernet, limits, epochs):
    """Trains the logits alone, anew, for other limits.

    Args:
        search: the `PolicySearch`.
        supernet: its trained `Supernet`.
        limits: list of `Limit`.
        epochs: number of epochs.
    """
    supernet.start_at(limits)
    supernet.clock.progress.assign(0.0)
    margin = make_margin(search, supernet) if search.method == "seam" else None
    trainable = [
        (part, part.trainable) for part in supernet.model._flatten_layers()
    ]
    supernet.model.trainable = False
    for choice in supernet.choices:
        choice.trainable = True
    try:
        model = compiled(search, supernet, limits, epochs, margin, False)
        model.fit(
            search.batches(),
            epochs=epochs,
            shuffle=False,
            verbose=search.verbose,
            reestimate_batch_norm=False,
        )
    finally:
        for part, value in trainable:
            part.trainable = value


def compiled(search, supernet, limits, epochs, margin, sample):
    """The trainer of a supernet."""
    num_steps = max(epochs * search.batches().num_batches, 1)
    if search.rho and not sample:
        model = trainers.SharpSearchTrainer(supernet.model, search.rho)
    else:
        model = trainers.SearchTrainer(supernet.model)
    model.prepare(
        supernet,
        limits,
        margin,
        search.margin_weight,
        search.cost_weight,
        num_steps,
        sample,
        search.seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(
        search.learning_rate, num_steps, alpha=0.1
    )
    logit_rate = search.logit_learning_rate
    if logit_rate is None:
        logit_rate = min(_LOGIT_TRAVEL / num_steps, _LARGEST_LOGIT_RATE)
    optimizer = SearchAdam(rate, logit_rate / search.learning_rate)
    model.compile(optimizer, search.loss, metrics=_metrics(search))
    return model


def _metrics(search):
    return [] if search.proxy.num_classes is None else ["accuracy"]


def make_margin(search, supernet):
    """The margin term, its centres from the supernet as it is."""
    proxy = search.proxy
    if proxy.num_classes is None:
        raise ValueError(
            'method="seam" needs classes: one integer label per sample. '
            f"Received labels of shape {proxy.y.shape} and dtype "
            f'{proxy.y.dtype}. Use method="ce" with your `loss`.'
        )
    sums = 0.0
    for start in range(0, len(proxy.x), _BATCH):
        x = ops.convert_to_tensor(proxy.x[start : start + _BATCH])
        supernet.model(x, training=False)
        z = normalized_features(supernet.take_features())
        labels = ops.convert_to_tensor(proxy.y[start : start + _BATCH])
        rows = class_rows(labels, proxy.num_classes)
        sums = sums + ops.convert_to_numpy(ops.matmul(ops.transpose(rows), z))
    margin = LargeMargin(proxy.num_classes, sums.shape[-1], name="margin")
    margin.set_centres(sums)
    return margin


def _check_same(space, other):
    if space.groups != other.groups:
        missing = [g.name for g in space.groups if g not in other.groups]
        raise ValueError(
            "The model on the proxy must have the layers of the model, with "
            "the same paths and inputs. It lacks, or decides differently: "
            f"{missing[:5]}"
        )
