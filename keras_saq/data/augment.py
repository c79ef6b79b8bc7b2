"""Augmentation of batches of images, in NumPy."""

import numpy as np


def shift_and_flip(x, rng, pixels=4, flip=True):
    """Moves each image by a few pixels and mirrors half of them.

    What is moved in from outside is zero, as with padded random crops.

    Args:
        x: images, `(batch, height, width, channels)`.
        rng: a `numpy.random.Generator`.
        pixels: largest distance along an axis.
        flip: whether to mirror.

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
    chosen = rng.random((count, 1)) < (0.5 if flip else 1.0)
    across = np.where(chosen, across, across[::-1])
    down = (rows + np.arange(height))[:, :, None]
    image = np.arange(count)[:, None, None]
    return padded[image, down, (columns + across)[:, None, :]]


def _by_size(x, rng):
    # Four pixels of 32, the recipe for CIFAR.
    return shift_and_flip(x, rng, max(1, x.shape[1] // 8))


def _shift(x, rng):
    return shift_and_flip(x, rng, max(1, x.shape[1] // 8), flip=False)


def _flip(x, rng):
    return shift_and_flip(x, rng, 0)


AUGMENTATIONS = {
    "none": None,
    "flip": _flip,
    "shift": _shift,
    "shift_flip": _by_size,
}


def get_augmentation(name, shape):
    """An augmentation of batches by its name.

    Args:
        name: `"none"`, `"flip"` (left to right), `"shift"` (by up to an
            eighth of the height) or `"shift_flip"`.
        shape: shape of one input.

    Returns:
        `function(x, rng)`, or `None`.

    Raises:
        ValueError: if there is none of that name, or inputs are no images.

    Example:

    >>> from keras_saq.data import get_augmentation
    >>> get_augmentation("none", (4,)) is None
    True
    """
    if name not in AUGMENTATIONS:
        raise ValueError(
            f"`augment` must be one of {list(AUGMENTATIONS)}. "
            f"Received: augment={name!r}"
        )
    if AUGMENTATIONS[name] is not None and len(shape) != 3:
        raise ValueError(
            f"The augmentation '{name}' is for images, of shape (height, "
            f"width, channels). The inputs have shape {tuple(shape)}. Use "
            "'none'."
        )
    return AUGMENTATIONS[name]
