"""Images as a network wants them: its size, its number of channels."""

import concurrent.futures
import os

import numpy as np

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Up to here a folder of images is decoded once and kept.
_KEPT_BYTES = 1 << 30


def fit_image(image, shape):
    """An image in the size and with the channels that are asked for.

    Args:
        image: uint8 array `(height, width, channels)`, or a Pillow image.
        shape: `(height, width, channels)`; `None` where any will do.

    Returns:
        A uint8 array.

    Raises:
        ValueError: if there is no such kind of image.

    Example:

    >>> import numpy as np
    >>> from keras_saq.data import fit_image
    >>> fit_image(np.zeros((6, 8, 3), "uint8"), (3, 4, 1)).shape
    (3, 4, 1)
    """
    if isinstance(image, np.ndarray):
        if _fits(image.shape, shape):
            return image
        flat = image[..., 0] if image.shape[-1] == 1 else image
        image = require_pillow().fromarray(flat)
    image = _of_bytes(image)
    height, width, channels = shape
    if channels is not None:
        if channels not in _MODES:
            raise ValueError(
                f"Images have {', '.join(map(str, _MODES))} channels, and the "
                f"model's input has {channels}. Give an .npz of arrays."
            )
        image = image.convert(_MODES[channels])
    size = (width or image.width, height or image.height)
    if image.size != size:
        image = image.resize(size, require_pillow().Resampling.BILINEAR)
    array = np.asarray(image, "uint8")
    return array if array.ndim == 3 else array[..., None]


def _of_bytes(image):
    """A Pillow image of 8 bits: Pillow itself would clip others to white."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype("uint32")
        return require_pillow().fromarray(
            ((values + 128) // 257).astype("uint8")
        )
    if image.mode in ("I", "F"):
        name = getattr(image, "filename", "") or "An image"
        raise ValueError(
            f"'{name}' has pixels of 32 bits (Pillow's mode {image.mode}), of "
            "which nothing says what is white. Expected 8 or 16 bits. Convert "
            "it, or give an .npz of arrays."
        )
    return image


def _fits(actual, wanted):
    return all(w in (None, a) for a, w in zip(actual, wanted))


class ImageFiles:
    """Image files that are decoded when they are read.

    Args:
        paths: the files.
        shape: `(height, width, channels)` of the images that come out.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from keras_saq.data import ImageFiles
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.fromarray(np.full((4, 4, 3), 128, "uint8")).save(path)
    >>> ImageFiles([path], (2, 2, 1))[np.array([0, 0])].shape
    (2, 2, 2, 1)
    """

    dtype = np.dtype("uint8")

    def __init__(self, paths, shape):
        self.paths = list(paths)
        self.shape = (len(self.paths), *shape)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, indices):
        chosen = np.arange(len(self))[indices]
        # Decoding lets other threads run.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            images = list(pool.map(self._read, np.atleast_1d(chosen)))
        return images[0] if chosen.ndim == 0 else np.stack(images)

    def take(self, indices):
        """The files at some indices."""
        return ImageFiles([self.paths[i] for i in indices], self.shape[1:])

    def kept(self, progress=None):
        """An array of all images if it is small enough, or this object."""
        if np.prod(self.shape) > _KEPT_BYTES:
            return self
        array = np.empty(self.shape, "uint8")
        for start in range(0, len(self), 256):
            rows = slice(start, start + 256)
            array[rows] = self[rows]
            if progress is not None:
                progress(len(array[rows]))
        return array

    def _read(self, index):
        return read_image(self.paths[index], self.shape[1:])


def read_image(path, shape):
    """Decodes a file; see `fit_image`.

    Raises:
        ValueError: if the file is no readable image.
    """
    pillow = require_pillow()
    try:
        with pillow.open(path) as image:
            # One that is not converted has palettes and other modes.
            if shape[-1] is None:
                image = _of_bytes(image).convert("RGB")
            return fit_image(image, shape)
    except (OSError, SyntaxError, pillow.DecompressionBombError) as error:
        raise ValueError(f"'{path}' is not a readable image: {error}") from None


def require_pillow():
    """`PIL.Image`, or an error that says how to install it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Images are read and resized with Pillow, which is not installed. "
            'Install it with `pip install "keras-saq[data]"`.'
        ) from error
    return Image
