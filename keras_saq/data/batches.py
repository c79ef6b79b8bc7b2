"""Batches for `fit`: the same in every run, and after every interruption."""

import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """`(x * scale - mean) / std`, as float32.

    Args:
        scale: a number, such as 1/255.
        mean: a number, or one per channel, after scaling.
        std: the same.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import Preprocessing
    >>> x = np.full((1, 2, 2, 3), 255, "uint8")
    >>> Preprocessing(1 / 255, (0.5, 0.0, 0.0), 2.0)(x)[0, 0, 0].tolist()
    [0.25, 0.5, 0.5]
    """

    scale: float = 1.0
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self):
        values = np.concatenate(
            [np.ravel(v) for v in (self.scale, self.mean, self.std)]
        )
        if not np.isfinite(values).all() or np.any(np.equal(self.std, 0)):
            raise ValueError(
                "`scale` and `mean` must be finite and `std` not zero. "
                f"Received: {self}"
            )

    def __call__(self, x):
        for name in ("mean", "std"):
            count = np.size(getattr(self, name))
            if count > 1 and count != x.shape[-1]:
                raise ValueError(
                    f"`{name}` must be one number, or one per channel. "
                    f"Received: {count} numbers for inputs of shape "
                    f"{tuple(x.shape[1:])}"
                )
        x = np.asarray(x, "float32")
        if self.scale != 1:
            x = x * np.float32(self.scale)
        if np.any(self.mean):
            x = x - np.asarray(self.mean, "float32")
        if np.any(np.not_equal(self.std, 1)):
            x = x / np.asarray(self.std, "float32")
        return x


class Batches(keras.utils.PyDataset):
    """Batches of `Samples` for `fit`, `evaluate` and calibration.

    Order and augmentation depend on the seed, the epoch and the number of the
    batch and on nothing else: training that goes on after an interruption
    sees what it would have seen. Give `fit` the callback `epochs()`, which
    tells the epoch, and `shuffle=False`: Keras would shuffle the batches.

    Args:
        samples: `keras_saq.data.Samples`.
        batch_size: samples per batch.
        preprocess: `function(x)` of a batch of inputs.
        augment: `function(x, rng)` of what that returned.
        shuffle: another order in each epoch, and whole batches only, so that
            one shape is compiled.
        seed: of order and augmentation.
        max_batches: at most as many batches per epoch.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import Batches, Samples
    >>> samples = Samples(np.arange(10)[:, None], np.arange(10), "numbers")
    >>> batches = Batches(samples, 4, shuffle=True)
    >>> first = [batches[i][1].tolist() for i in range(len(batches))]
    >>> batches.epoch = 1
    >>> first == [batches[i][1].tolist() for i in range(len(batches))]
    False
    """

    def __init__(
        self,
        samples,
        batch_size,
        preprocess=None,
        augment=None,
        shuffle=False,
        seed=0,
        max_batches=None,
    ):
        super().__init__()
        self.samples = samples
        self.batch_size = min(batch_size, len(samples))
        self.preprocess = preprocess or Preprocessing()
        self.augment = augment
        self.shuffle = shuffle
        self.seed = seed
        self.max_batches = max_batches
        self.epoch = 0
        self._order = None, None

    def __len__(self):
        count = len(self.samples) / self.batch_size
        count = int(count) if self.shuffle else int(np.ceil(count))
        return min(count, self.max_batches or count)

    def __getitem__(self, index):
        start = index * self.batch_size
        chosen = self._indices()[start : start + self.batch_size]
        x = self.preprocess(self.samples.x[chosen])
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, 1, self.epoch, index))
            x = self.augment(x, rng)
        return x, self.samples.y[chosen]

    def epochs(self):
        """The callback that tells this object the epoch."""
        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: setattr(self, "epoch", epoch)
        )

    def _indices(self):
        epoch, order = self._order
        if order is None or epoch != self.epoch:
            order = np.arange(len(self.samples))
            if self.shuffle:
                rng = np.random.default_rng((self.seed, 0, self.epoch))
                order = rng.permutation(len(self.samples))
            self._order = self.epoch, order
        return order
