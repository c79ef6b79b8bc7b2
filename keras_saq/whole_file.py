"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import tempfile


@contextlib.contextmanager
def replaced(path):
    """A binary file to write, which takes the place of `path` at the end.

    Where the block raises, nothing is left and an older file stays.

    Args:
        path: a path in a folder that exists.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_saq.whole_file import replaced
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers.bin"
    >>> with replaced(path) as file:
    ...     written = file.write(bytes(3))
    >>> path.stat().st_size
    3
    """
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}."
    )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
