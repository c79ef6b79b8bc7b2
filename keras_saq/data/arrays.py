"""Arrays in `.npy` and `.npz` files, whoever wrote them."""

import contextlib
import os
import pathlib

import numpy as np


class ArrayFile:
    """The arrays of a `.npy` or `.npz` file, read when they are asked for.

    Pickled objects are never read.

    Args:
        path: the file.
        kind: what is expected, for messages.

    Attributes:
        names: names of the arrays of an `.npz`; empty for a `.npy`.

    Raises:
        ValueError: if the file cannot be read, whatever is wrong with it.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from keras_saq.data.arrays import ArrayFile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "small.npz"
    >>> np.savez(path, x=np.zeros((6, 4)))
    >>> file = ArrayFile(path)
    >>> file.names, file.read("x").shape
    (('x',), (6, 4))
    """

    def __init__(self, path, kind=".npy or .npz"):
        self._kind = kind
        self.path = pathlib.Path(path)
        self.names = ()
        with self._opened() as loaded:
            self.is_archive = not isinstance(loaded, np.ndarray)
            if self.is_archive:
                self.names = tuple(loaded.files)

    def read(self, name=None):
        """An array, by its name; that of a `.npy` has none.

        Raises:
            ValueError: if it cannot be read, or holds something else than
                numbers or text.
        """
        with self._opened() as loaded:
            array = loaded if name is None else loaded[name]
            if not isinstance(array, np.ndarray):
                raise ValueError(f"its entry '{name}' is no array")
            if array.dtype.kind not in "biufSU":
                raise ValueError(
                    f"expected numbers or text, received the type {array.dtype}"
                )
            return array

    @contextlib.contextmanager
    def _opened(self):
        try:
            with self.path.open("rb") as file:
                self._check_size(file)
                loaded = np.load(file, allow_pickle=False)
                yield loaded
        except MemoryError as error:
            raise ValueError(
                f"'{self.path}' holds more than the memory can: {error}"
            ) from error
        except Exception as error:  # of zip, zlib, headers, ...
            what = str(error) or type(error).__name__
            raise ValueError(
                f"'{self.path}' is not a readable {self._kind} file: {what}"
            ) from error

    @staticmethod
    def _check_size(file):
        """Raises where a `.npy` says that it holds more than there is.

        Memory would be taken for what its header says.
        """
        magic = file.read(6)
        file.seek(0)
        if magic != b"\x93NUMPY":
            return
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is not None:
            shape, _, dtype = read(file)
            there = os.fstat(file.fileno()).st_size - file.tell()
            needed = dtype.itemsize
            for size in shape:
                needed *= int(size)
            if needed > there and not dtype.hasobject:
                raise ValueError(
                    f"its header says {needed:,} bytes, and there are {there:,}"
                )
        file.seek(0)
