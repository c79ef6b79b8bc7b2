"""Augmentation of batches of images, in NumPy."""

import numpy as np


def shift_and_flip(x, rng, pixels=4):
    """Moves each image by a few pixels and mirrors half of them.

    What is moved in from outside is zero, as with padded random crops.

    Args:
        x: images, `(batch, height, width, channels)`.
        rng: a `numpy.random.Generator`.
        pixels: largest distance along an axis.

    Returns:
        An array like `x`.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import shift_and_flip
    >>> x = np.ones((2, 8, 8, 3))
    >>> shift_and_flip(x, np.random.default_rng(0)).shape
    (2, 8, 8, 3)
    """
    count, height, width = x.shape[:3]
    padded = np.pad(x, [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)])
    rows, columns = rng.integers(0, 2 * pixels + 1, (2, count, 1))
    across = np.arange(width)
    across = np.where(rng.random((count, 1)) < 0.5, across, across[::-1])
    down = (rows + np.arange(height))[:, :, None]
    image = np.arange(count)[:, None, None]
    return padded[image, down, (columns + across)[:, None, :]]
