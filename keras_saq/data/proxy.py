"""Proxy splits: a small, class-balanced part of a data set, always the same."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ProxySplit:
    """A part of a data set, as arrays.

    Attributes:
        x: inputs, with the samples in the order of the data set.
        y: integer labels, `(samples,)`.
        name: what it is a part of.
        fraction: which part, 0 to 1.
        seed: of the choice.
        num_classes: number of classes.
    """

    x: np.ndarray
    y: np.ndarray
    name: str
    fraction: float
    seed: int
    num_classes: int

    def __len__(self):
        return len(self.x)

    def describe(self):
        """Dict of plain data that says what it is."""
        return {
            "name": self.name,
            "fraction": self.fraction,
            "seed": self.seed,
            "samples": len(self),
            "classes": self.num_classes,
        }


def proxy_split(
    source, fraction=0.04, seed=0, split="train", preprocess=None, name=None
):
    """Chooses the same part of each class, at random but deterministically.

    Args:
        source: name of a data set of TensorFlow Datasets, such as
            `"cifar100"`; a `tf.data.Dataset` of `(x, y)`, in batches or not,
            that yields the same order twice; or a pair of arrays `(x, y)`.
        fraction: part of each class that is taken, above 0 to 1. Where that
            is no whole number of samples, it is rounded, to 1 at least.
        seed: of the choice.
        split: of a data set of TensorFlow Datasets.
        preprocess: `function(x)` of all chosen inputs, e.g. a division by
            255; by default inputs become float32 and keep their values.
        name: what the source is called; by default what TensorFlow Datasets
            calls it, or its type.

    Returns:
        A `ProxySplit`.

    Raises:
        ValueError: if the fraction is out of range, or the labels are not one
            integer per sample.
        ImportError: if TensorFlow Datasets is needed and not installed.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import proxy_split
    >>> x, y = np.zeros((100, 4)), np.arange(100) % 5
    >>> proxy = proxy_split((x, y), fraction=0.1)
    >>> np.bincount(proxy.y).tolist()
    [2, 2, 2, 2, 2]
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            "`fraction` must be above 0 and at most 1. "
            f"Received: fraction={fraction}"
        )
    if isinstance(source, str):
        name, source = name or source, _from_tfds(source, split)
    elif hasattr(source, "element_spec"):
        name = name or "tf.data.Dataset"
        source = _samples(source)
    else:
        name = name or "arrays"
        x, y = (np.asarray(a) for a in source)
        chosen = balanced_indices(y, fraction, seed)
        return _made(x[chosen], y[chosen], name, fraction, seed, preprocess)
    labels = np.array([y for y in source.map(lambda x, y: y)])
    chosen = set(balanced_indices(labels, fraction, seed).tolist())
    taken = [(x, y) for i, (x, y) in enumerate(source) if i in chosen]
    order = np.array(sorted(chosen))
    again = np.array([y for _, y in taken])
    if not np.array_equal(labels[order], again):
        raise ValueError(
            "The data set must yield the same samples in the same order each "
            "time, and its labels were others the second time. Leave out "
            "`shuffle` and random `filter`s."
        )
    x = np.stack([x for x, _ in taken])
    return _made(x, labels[order], name, fraction, seed, preprocess)


def balanced_indices(labels, fraction, seed):
    """Indices of a part of each class, ascending.

    Args:
        labels: integers, `(samples,)` or `(samples, 1)`.
        fraction: the part.
        seed: of the choice.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "Labels must be one integer per sample, of shape (samples,). "
            f"Received: shape {labels.shape}, dtype {labels.dtype}"
        )
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(chosen))


def _made(x, y, name, fraction, seed, preprocess):
    y = y.reshape(-1)
    x = preprocess(x) if preprocess is not None else x.astype("float32")
    return ProxySplit(
        x=np.asarray(x),
        y=y.astype("int32"),
        name=name,
        fraction=float(fraction),
        seed=int(seed),
        num_classes=int(y.max()) + 1,
    )


def _samples(dataset):
    """A data set of single samples, as NumPy values."""
    _, labels = dataset.element_spec
    if labels.shape.rank not in (0, None) and _is_batched(dataset):
        dataset = dataset.unbatch()
    return _AsNumpy(dataset)


def _is_batched(dataset):
    x, y = dataset.element_spec
    return y.shape[0] is None or (
        x.shape.rank and y.shape[0] == x.shape[0] and y.shape[0] != 1
    )


class _AsNumpy:
    """A `tf.data.Dataset` that is read as NumPy, as often as wanted."""

    def __init__(self, dataset):
        self._dataset = dataset

    def map(self, function):
        return _AsNumpy(self._dataset.map(function))

    def __iter__(self):
        return self._dataset.as_numpy_iterator()


def _from_tfds(name, split):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"The data set '{name}' comes from TensorFlow Datasets, which is "
            'not installed. Install it with `pip install "keras-saq[data]"`, '
            "or pass arrays `(x, y)` or a `tf.data.Dataset`."
        ) from error
    return _AsNumpy(tfds.load(name, split=split, as_supervised=True))
