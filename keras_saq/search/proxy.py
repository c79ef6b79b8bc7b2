"""What a search takes as its proxy, as arrays."""

import numpy as np

from keras_saq.data import ProxySplit


class Proxy:
    """Inputs and labels of a search.

    Attributes:
        x: inputs, an array.
        y: labels, an array.
        num_classes: number of classes, or `None` where labels are no classes.
    """

    def __init__(self, x, y, source, num_classes):
        self.x, self.y = np.asarray(x), np.asarray(y)
        self.source, self.num_classes = source, num_classes
        if len(self.x) != len(self.y) or not len(self.x):
            raise ValueError(
                "A proxy needs as many labels as inputs, and at least one. "
                f"Received: {len(self.x)} inputs and {len(self.y)} labels"
            )

    def part(self, indices):
        """Some of its samples; of all of its classes, as far as is known."""
        return Proxy(
            self.x[indices], self.y[indices], self.source, self.num_classes
        )

    def describe(self):
        """Dict of plain data that says what it is."""
        return self.source

    def other_classes(self, num_outputs):
        """Whether it has other classes than a model, as far as is known.

        A part of a data set has that data set's number of classes; of arrays
        it is only known that labels beyond the outputs are others.
        """
        if self.num_classes is None:
            return False
        if "classes" in self.source:
            return self.num_classes != num_outputs
        return self.num_classes > num_outputs


def as_proxy(proxy):
    """A `Proxy` of a `ProxySplit`, of arrays, or of batches."""
    if isinstance(proxy, Proxy):
        return proxy
    if isinstance(proxy, ProxySplit):
        return Proxy(proxy.x, proxy.y, proxy.describe(), proxy.num_classes)
    name = type(proxy).__name__
    if isinstance(proxy, (tuple, list)) and len(proxy) == 2:
        x, y = proxy
    elif hasattr(proxy, "element_spec"):
        batches = list(proxy.as_numpy_iterator())
        x, y = (np.concatenate(arrays) for arrays in zip(*batches))
    else:
        raise ValueError(
            "`proxy` must be a `keras_saq.data.ProxySplit`, arrays `(x, y)` "
            f"or a `tf.data.Dataset` of batches. Received: {name}"
        )
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    is_class = y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    num_classes = int(y.max()) + 1 if is_class and len(y) else None
    return Proxy(x, y, {"name": name, "samples": len(x)}, num_classes)
