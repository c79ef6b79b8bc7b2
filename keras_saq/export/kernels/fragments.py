"""Float graphs that the converter made: LiteRT computes them, also here.

There is no other specification of them. The reference runs a fragment alone,
as a file of its own.
"""

import collections

import numpy as np

from keras_saq.export.fragments.splice import splice
from keras_saq.export.isolated import IsolatedFile
from keras_saq.export.kernels.kernel import Kernel
from keras_saq.export.kernels.kernel import always

# As many fragments stay loaded.
_LOADED = 64
_files = collections.OrderedDict()


def run_fragment(fragment, arrays):
    """The outputs of a fragment alone, a list of arrays."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    file = _loaded(fragment)
    if not fragment.single_sample or len(arrays[0]) == 1:
        return file.run(arrays)
    samples = [
        file.run([a[i : i + 1] for a in arrays]) for i in range(len(arrays[0]))
    ]
    return [np.concatenate(parts) for parts in zip(*samples)]


def _loaded(fragment):
    file = _files.pop(fragment.content, None)
    if file is None or not file.is_open:
        file = IsolatedFile(fragment.content)
    _files[fragment.content] = file
    while len(_files) > _LOADED:
        _, oldest = _files.popitem(last=False)
        oldest.__exit__()
    return file


def _run(op, *arrays):
    return run_fragment(op.options["fragment"], arrays)[op.options["index"]]


KERNELS = {
    "fragment": Kernel(
        "CUSTOM", 1, _run, has_sizes=always, write=splice, is_exact=False
    ),
    "exact_fragment": Kernel("CUSTOM", 1, _run, has_sizes=always, write=splice),
}
