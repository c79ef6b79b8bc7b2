"""A folder that one run at a time writes to.

The lock is the operating system's, on a file in the folder: it goes with the
process that holds it, however that ends. So a file that a killed run has left
behind locks nothing. What is in it is for the message alone.
"""

import contextlib
import os
import pathlib

NAME = ".lock"


class FolderLock:
    """Takes a folder for this process.

    Args:
        folder: a folder that exists.

    Raises:
        ValueError: if another process has it.

    Example:

    >>> import tempfile
    >>> from keras_saq.cli.lock import FolderLock
    >>> folder = tempfile.mkdtemp()
    >>> lock = FolderLock(folder)
    >>> try:
    ...     FolderLock(folder)
    ... except ValueError as error:
    ...     print(str(error)[:15])
    Another process
    >>> lock.release()
    >>> FolderLock(folder).release()
    """

    def __init__(self, folder):
        self._path = pathlib.Path(folder) / NAME
        self._file = None
        while self._file is None:
            self._file = self._taken()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def release(self):
        """Gives the folder back; a second time it does nothing."""
        if self._file is None:
            return
        # First, while nobody else can have it.
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()
        self._file = None

    def _taken(self):
        """The locked file, or `None` if it was removed meanwhile."""
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.fdopen(os.open(self._path, flags, 0o666), "r+b")
        except OSError as error:
            raise ValueError(
                f"The folder '{self._path.parent}' cannot be locked: {error}"
            ) from error
        if not _lock(file):
            holder = file.read(40).decode(errors="replace").strip()
            file.close()
            raise ValueError(
                f"Another process ({holder or 'just starting'}) is writing to "
                f"the folder '{self._path.parent}'. Wait until it ends, or "
                "give the name of another folder."
            )
        if not _is_at(file, self._path):
            file.close()
            return None
        file.truncate(0)
        file.write(f"process {os.getpid()}".encode())
        file.flush()
        return file


def _is_at(file, path):
    """Whether an open file is still the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _lock(file):
    """Whether a file could be locked; without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that has no locks
    return True


def _lock_on_windows(file):
    import msvcrt

    try:
        file.seek(1 << 20)  # beyond what is read for messages
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    except OSError:
        return False
    return True
