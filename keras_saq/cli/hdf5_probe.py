"""The program of a process that reads a whole HDF5 file.

The HDF5 library does not end on some damaged files, and crashes on others, and
nothing in its own process can stop that. So this one reads first; what reads
here is read by the command. It imports nothing of this package.

    python hdf5_probe.py FILE SECONDS

FILE is an HDF5 file, or a `.keras` archive with such files. SECONDS is of
processor time; more than that ends the process by a signal.
"""

import io
import signal
import sys
import zipfile

# A dataset that is packed may be as many times as large as its file.
_LARGEST_RATIO = 2000


def main():
    path, seconds = sys.argv[1], float(sys.argv[2])
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            read(file.read())
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                read(archive.read(name))


def read(content):
    """Reads all groups, attributes and datasets."""
    import h5py

    def visit(_, item):
        for key in item.attrs:
            item.attrs[key]
        if isinstance(item, h5py.Dataset):
            if item.nbytes > _LARGEST_RATIO * len(content):
                raise ValueError("a dataset is larger than its file")
            item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        visit("", file)
        file.visititems(visit)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # the command finds it too, and says it
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
