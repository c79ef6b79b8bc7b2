"""Samples of a data set: inputs, labels, and what they are called."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and labels, all of the same shape.

    Attributes:
        x: inputs, `(samples, ...)`: an array, or an object with `shape` and
            `dtype` that gives an array for an array of indices, such as
            `keras_saq.data.ImageFiles`.
        y: labels, `(samples,)` integers, or anything else a loss can read.
        name: what they are a part of.
        class_names: names of the classes in the order of the labels, or `()`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import Samples
    >>> samples = Samples(np.zeros((4, 2)), np.arange(4), "zeros")
    >>> len(samples), samples.num_classes, samples.take([1, 3]).y.tolist()
    (4, 4, [1, 3])
    """

    x: Any
    y: np.ndarray
    name: str
    class_names: tuple[str, ...] = ()

    def __len__(self):
        return len(self.y)

    @property
    def has_classes(self):
        """Whether labels are one integer per sample."""
        return self.y.ndim == 1 and np.issubdtype(self.y.dtype, np.integer)

    @property
    def num_classes(self):
        """Number of classes; 0 where labels are no integers."""
        if not self.has_classes:
            return 0
        return len(self.class_names) or int(self.y.max()) + 1

    def take(self, indices):
        """Some of the samples, in the order of the indices."""
        indices = np.asarray(indices)
        return dataclasses.replace(
            self, x=_at(self.x, indices), y=self.y[indices]
        )

    def choose(self, count, seed=0):
        """At most `count` samples at random, always the same."""
        if count >= len(self):
            return self
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(np.sort(order[:count]))

    def hold_out(self, fraction, seed=0):
        """Splits off a part, as far as possible the same part of each class.

        A class never goes as a whole. Labels of which more than half differ
        are numbers rather than classes, and the choice is one among all.

        Args:
            fraction: the part, above 0 and below 1.
            seed: of the choice.

        Returns:
            `(rest, part)`.

        Raises:
            ValueError: if nothing would be left, or nothing be held out.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                "`fraction` must be above 0 and below 1. "
                f"Received: fraction={fraction}"
            )
        if self._has_likely_classes():
            chosen = _same_part(self.y, fraction, seed)
        else:
            order = np.random.default_rng(seed).permutation(len(self))
            chosen = np.sort(order[: round(fraction * len(self))])
        rest = np.setdiff1d(np.arange(len(self)), chosen)
        if not len(rest) or not len(chosen):
            raise ValueError(
                f"A part of {fraction:g} of the {len(self)} samples of "
                f"'{self.name}' leaves {len(rest)} and holds out "
                f"{len(chosen)}. Both need at least one."
            )
        return self.take(rest), self.take(chosen)

    def _has_likely_classes(self):
        return self.has_classes and 2 * len(np.unique(self.y)) <= len(self)


def _same_part(labels, fraction, seed):
    """Indices of a part of each class, ascending, none of them whole.

    What rounding down leaves over goes to the classes that lost most by it,
    so that many small classes neither give all nor nothing.
    """
    rng = np.random.default_rng(seed)
    _, classes, sizes = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    members = [
        rng.permutation(np.flatnonzero(classes == i)) for i in range(len(sizes))
    ]
    exact = fraction * sizes
    counts = np.floor(exact).astype(int)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(counts[order] - exact[order], kind="stable")]
    order = order[counts[order] + 1 < sizes[order]]
    left = max(0, round(fraction * len(labels)) - counts.sum())
    counts[order[:left]] += 1
    return np.sort(np.concatenate([m[:c] for m, c in zip(members, counts)]))


def _at(x, indices):
    return x.take(indices) if hasattr(x, "paths") else x[indices]
