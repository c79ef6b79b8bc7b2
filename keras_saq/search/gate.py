"""Is a searched policy better than equal bits? Asked before it is returned.

Every policy within the budget is made and measured alike: quantized after
training, with the correction that calibration makes, on samples of the proxy
that chose nothing. With l the loss of each of n samples, and d = l_other -
l_searched,

    gain = mean(d),   error = std(d) / sqrt(n)

and the searched policy is returned if its gain over every other one is above
two errors; else the best of the others is. Samples are paired, so that what is
hard for all of them does not count as an error.
"""

import dataclasses
import math
import warnings

import keras
import numpy as np
from keras import ops

from keras_saq.layers.roles import family
from keras_saq.models import quantize_model
from keras_saq.search import head
from keras_saq.search.methods.plain import uniform_assignment

ERRORS = 2.0
MAX_SAMPLES = 1024
_CALIBRATION = 256
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the gate measured.

    Attributes:
        chosen: `"searched"`, `"uniform"` or `"heuristic"`.
        measure: `"loss"`, or `"distance"`: mean squared difference of the
            outputs from the float model's, where the proxy has other classes.
        means: dict from the names of the policies to their mean.
        gain: by how much the searched one is better than the best other.
        error: standard error of that.
        samples: how many samples there were.
    """

    chosen: str
    measure: str
    means: dict
    gain: float
    error: float
    samples: int


def heuristic_assignment(space, limits):
    """Depthwise convolutions and both ends at the most bits, the rest alike.

    Args:
        space: a `SearchSpace`.
        limits: list of `Limit`.
    """
    ends = {space.sites[0].path, space.sites[-1].path} if space.sites else set()
    ends |= {s.path for s in space.sites if family(s.layer) == "depthwise"}
    held = [
        dataclasses.replace(group, bits=group.bits[-1:])
        if ends & set(group.paths)
        else group
        for group in space.groups
    ]
    offsets = [len(g.bits) - len(h.bits) for g, h in zip(space.groups, held)]

    def moved(limit):
        cost = _Moved(limit.cost, offsets)
        return dataclasses.replace(limit, cost=cost)

    bits = sorted({b for g in held for b in g.bits}, reverse=True)
    for each in bits:
        chosen = [
            max((i for i, b in enumerate(g.bits) if b <= each), default=0)
            for g in held
        ]
        if all(moved(m).cost.value(chosen) <= m.limit for m in limits):
            return np.add(chosen, offsets)
    return None


class _Moved:
    """A cost of indices into candidates without the first ones."""

    def __init__(self, cost, offsets):
        self._cost, self._offsets = cost, offsets

    def value(self, assignment):
        return self._cost.value(np.add(assignment, self._offsets))


def judge(search, searched, limits):
    """The assignment to be returned, and the `Verdict`.

    Args:
        search: a `PolicySearch` with held-out samples.
        searched: indices of candidates that the search found.
        limits: list of `Limit`.
    """
    named = {"searched": np.asarray(searched)}
    others = {
        "uniform": uniform_assignment(search.space.groups, limits),
        "heuristic": heuristic_assignment(search.space, limits),
    }
    for name, assignment in others.items():
        known = [list(each) for each in named.values()]
        if assignment is not None and list(assignment) not in known:
            named[name] = np.asarray(assignment)
    x, y = search.held_out
    if len(named) == 1 or len(x) < 2:
        return named["searched"], None
    measure = _measure(search, x, y)
    losses = {
        name: measure(search.space.policy(assignment))
        for name, assignment in named.items()
    }
    means = {name: float(np.mean(each)) for name, each in losses.items()}
    best = min((n for n in named if n != "searched"), key=means.get)
    difference = losses[best] - losses["searched"]
    gain = float(np.mean(difference))
    error = float(np.std(difference, ddof=1) / math.sqrt(len(difference)))
    chosen = "searched" if gain > ERRORS * error else best
    verdict = Verdict(
        chosen,
        "distance" if search.has_other_classes else "loss",
        means,
        gain,
        error,
        len(x),
    )
    return named[chosen], verdict


def _measure(search, x, y):
    """Function of a policy that returns a number for each sample."""
    model = search.model
    reference = None
    if search.has_other_classes:
        reference = _outputs(model, x)
    loss = search.loss or keras.losses.SparseCategoricalCrossentropy(
        from_logits=not head.is_normalized(model)
    )
    loss = keras.losses.get(loss)

    def measure(policy):
        with warnings.catch_warnings():
            # The numbers are compared here.
            warnings.simplefilter("ignore", UserWarning)
            q = quantize_model(
                model, policy, calibration=search.proxy.x[:_CALIBRATION]
            )
        outputs = _outputs(q, x)
        if reference is not None:
            values = np.square(outputs - reference)
        else:
            # Of a loss object, the function that gives a value per sample.
            function = getattr(loss, "call", loss)
            values = ops.convert_to_numpy(
                function(
                    ops.convert_to_tensor(y), ops.convert_to_tensor(outputs)
                )
            )
        return values.reshape(len(x), -1).mean(axis=1).astype("float64")

    return measure


def _outputs(model, x):
    parts = [
        ops.convert_to_numpy(model(x[i : i + _BATCH], training=False))
        for i in range(0, len(x), _BATCH)
    ]
    return np.concatenate(parts)


def hold_out(proxy, share, seed):
    """The proxy without some samples, and those.

    Args:
        proxy: a `Proxy`.
        share: of its samples, from 0 to 1; at most 1,024 are taken.
        seed: of the choice.

    Returns:
        `(proxy, (x, y))`.
    """
    count = min(int(len(proxy.x) * share), MAX_SAMPLES)
    order = np.random.default_rng([seed, 1]).permutation(len(proxy.x))
    apart, rest = np.sort(order[:count]), np.sort(order[count:])
    return proxy.part(rest), (proxy.x[apart], proxy.y[apart])
