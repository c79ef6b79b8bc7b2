"""The large-margin term: compact classes, far from each other.

SEAM (Tang et al., ACM MM 2023, arXiv 2302.06845) says that the noise of a bad
policy narrows the margins between classes, and searches for the policy that
keeps classes compact and apart. Its equations were not at hand. What follows
is a *reconstruction*, in the form of large-margin softmax losses:

    z_i   = normalised penultimate feature of sample i, y = its class
    l_ik  = s * (cos(z_i, c_k) - m [k = y])
    L     = mean over i of  -log softmax(l_i)_y
    c_k  <- normalised(momentum c_k + (1 - momentum) mean of the z_i of class k)

The centres c are constants in the gradient. s = 16, m = 0.2, momentum = 0.9.
"""

import keras
from keras import ops

_SMALLEST_NORM = 1e-12


class LargeMargin(keras.layers.Layer):
    """The term and its running class centres.

    Args:
        num_classes: number of classes.
        size: length of a feature.
        scale: s.
        margin: m, subtracted from the cosine to the own centre.
        momentum: of the centres.
    """

    def __init__(
        self,
        num_classes,
        size,
        scale=16.0,
        margin=0.2,
        momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.scale, self.margin = float(scale), float(margin)
        self.momentum = float(momentum)
        self.centres = self.add_weight(
            name="centres",
            shape=(num_classes, size),
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.built = True

    def call(self, features, labels, update=True):
        """The loss of a batch, a scalar.

        Args:
            features: tensor `(batch, ..., size)`; axes between are averaged.
            labels: integers `(batch,)` or `(batch, 1)`, or one row of
                probabilities for each sample.
            update: whether the centres move, after the loss is computed.
        """
        z = normalized_features(features)
        classes = class_rows(labels, self.centres.shape[0])
        centres = ops.stop_gradient(self.centres.value)
        cosines = ops.matmul(z, ops.transpose(centres))
        logits = self.scale * (cosines - self.margin * classes)
        loss = -ops.mean(ops.sum(classes * ops.log_softmax(logits), axis=-1))
        if update:
            self.centres.assign(self._moved(ops.stop_gradient(z), classes))
        return loss

    def _moved(self, z, classes):
        counts = ops.sum(classes, axis=0)[:, None]
        means = ops.matmul(ops.transpose(classes), z) / ops.maximum(counts, 1.0)
        centres = self.centres.value
        moved = self.momentum * centres + (1.0 - self.momentum) * means
        return ops.where(counts > 0, normalized(moved), centres)

    def set_centres(self, sums):
        """Starts from sums (or means) of features, one row per class."""
        self.centres.assign(normalized(ops.convert_to_tensor(sums, "float32")))


def normalized(x):
    """Rows of length 1; a row of zeros stays one."""
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, _SMALLEST_NORM**2))


def normalized_features(features):
    """Averages all axes but the first and the last, and normalises."""
    features = ops.cast(features, "float32")
    axes = list(range(1, len(features.shape) - 1))
    return normalized(ops.mean(features, axis=axes) if axes else features)


def class_rows(labels, num_classes):
    """Labels as float32 rows, one column per class."""
    if len(labels.shape) == 2 and labels.shape[-1] == num_classes != 1:
        return ops.cast(labels, "float32")
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    return ops.one_hot(labels, num_classes, dtype="float32")
