"""Samples of TensorFlow Datasets."""

import difflib
import os
import pathlib
import re

import keras
import numpy as np

from keras_saq.data.images import fit_image
from keras_saq.data.samples import Samples

_TEST_NAMES = ("test", "validation")
_BATCH = 512
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class TfdsSource:
    """A data set of TensorFlow Datasets, read into memory as it is needed.

    Args:
        name: its name, with a configuration and a version if wanted, or a
            folder in which it was prepared.
        data_dir: folder of all prepared data sets.
    """

    def __init__(self, name, data_dir=None):
        self.name = name
        self._tfds = require_tfds(name)
        self._builder = self._find(name, data_dir)
        info = self._builder.info
        self.splits = tuple(info.splits)
        if not self.splits:
            raise ValueError(f"The data set '{name}' has no splits.")
        self.train_split = "train" if "train" in self.splits else self.splits[0]
        self.test_split = next(
            (s for s in _TEST_NAMES if s in self.splits), None
        )
        self._keys = self._find_keys(info)

    def _find(self, name, data_dir):
        tfds = self._tfds
        folder = None
        if pathlib.Path(name).is_dir():
            folder = _prepared(pathlib.Path(name))
        try:
            if folder is not None:
                return tfds.builder_from_directory(folder)
            builder = tfds.builder(name, data_dir=data_dir)
        except tfds.core.registered.DatasetNotFoundError:
            names = tfds.list_builders(with_community_datasets=False)
            close = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ValueError(
                f"TensorFlow Datasets has no data set '{name}', and there is "
                f"no such file or folder.{hint} All names: "
                "https://www.tensorflow.org/datasets/catalog/overview"
            ) from None
        except Exception as error:
            raise ValueError(
                f"The data set '{name}' cannot be opened: {_first_line(error)}"
            ) from error
        if not builder.is_prepared():
            try:
                builder.download_and_prepare()
            except Exception as error:
                raise ValueError(
                    f"The data set '{name}' is not prepared in "
                    f"'{builder.data_path}' and could not be downloaded: "
                    f"{_first_line(error)}"
                ) from error
        return builder

    def _find_keys(self, info):
        """Names of the input and of the label."""
        keys = info.supervised_keys
        if keys and len(keys) == 2 and all(isinstance(k, str) for k in keys):
            return keys
        features = self._tfds.features
        kinds = (features.Image, features.ClassLabel)
        found = [
            [name for name, f in info.features.items() if isinstance(f, kind)]
            for kind in kinds
        ]
        if [len(names) for names in found] != [1, 1]:
            raise ValueError(
                f"The data set '{self.name}' does not say what its input and "
                "its label are. Expected one image and one class label. It "
                f"has: {', '.join(info.features)}. Give an .npz with arrays "
                "x and y."
            )
        return found[0][0], found[1][0]

    def load(self, split, image_shape=None, limit=None, seed=0, progress=None):
        """The samples of a split, with TensorFlow Datasets' slices."""
        count = self._count(split)
        feature, label = (self._builder.info.features[k] for k in self._keys)
        is_image = isinstance(feature, self._tfds.features.Image)
        kind = getattr(feature, "np_dtype", None)
        if isinstance(kind, dict) or kind in (None, np.object_):
            raise ValueError(
                f"The input '{self._keys[0]}' of '{self.name}' is no image "
                f"and no array of numbers: {feature}."
            )
        _hide_gpus()
        # Data sets are written in random order: the first are as good as any.
        count = min(count, limit or count)
        data = self._builder.as_dataset(split=split).take(count)
        data = data.map(lambda row: [row[key] for key in self._keys])
        bar = progress and progress(count, f"reading {self.name} {split}")
        shape = tuple(feature.shape)
        if is_image and not _fits(shape, image_shape):
            x, y = _fitted(data, count, image_shape, bar)
        else:
            x, y = _stacked(data.batch(_BATCH), count, shape, bar)
        names = tuple(getattr(label, "names", None) or ())
        y = y.astype("int32" if y.dtype.kind in "iub" else "float32")
        return Samples(x, y, self.name, names)

    def _count(self, split):
        try:
            count = self._builder.info.splits[split].num_examples
        except (KeyError, ValueError, AssertionError) as error:
            raise ValueError(
                f"'{self.name}' has no split '{split}'. It has: "
                f"{', '.join(self.splits)}, and parts such as "
                f"'{self.splits[0]}[:10%]'."
            ) from error
        if not count:
            raise ValueError(f"The split '{split}' of '{self.name}' is empty.")
        return count


def _prepared(root):
    """The folder of the newest version of the one data set in a folder."""
    found = {}
    for path in root.rglob("dataset_info.json"):
        folder = path.parent
        if ".incomplete" in folder.name:
            continue
        is_version = _VERSION.fullmatch(folder.name)
        version = tuple(map(int, folder.name.split("."))) if is_version else ()
        name = folder.parent if is_version else folder
        found.setdefault(name, {})[version] = folder
    if not found:
        raise ValueError(
            f"The folder '{root}' holds no data set that was prepared to its "
            "end."
        )
    if len(found) > 1:
        names = ", ".join(f"'{name}'" for name in sorted(found))
        raise ValueError(
            f"The folder '{root}' holds {len(found)} data sets: {names}. Give "
            "one of them."
        )
    (versions,) = found.values()
    return versions[max(versions)]


def _fits(shape, wanted):
    """Whether images need no change. Those of unknown size are tried."""
    if None in shape:
        return False
    return wanted is None or all(w in (None, s) for s, w in zip(shape, wanted))


def _stacked(batches, count, shape, progress):
    """Arrays of samples of one shape."""
    x, y, done = None, None, 0
    for values, labels in batches.as_numpy_iterator():
        if x is None:
            _check_memory(count, values.shape[1:], values.dtype)
            x = np.empty((count, *values.shape[1:]), values.dtype)
            y = np.empty((count, *labels.shape[1:]), labels.dtype)
        x[done : done + len(values)] = values
        y[done : done + len(values)] = labels
        done += len(values)
        if progress:
            progress(len(values))
    return x, y


def _fitted(data, count, shape, progress):
    """Arrays of images of any size, in the size that is asked for."""
    x, y = None, []
    for i, (image, label) in enumerate(data.as_numpy_iterator()):
        image = fit_image(image, shape or (None,) * 3)
        if x is None:
            _check_memory(count, image.shape, image.dtype)
            x = np.empty((count, *image.shape), image.dtype)
        if image.shape != x.shape[1:]:
            raise ValueError(
                f"The images have different sizes: {x.shape[1:]} and "
                f"{image.shape}. Give the size that the model should get with "
                "`--image-size=HEIGHT,WIDTH`."
            )
        x[i] = image
        y.append(label)
        if progress:
            progress(1)
    return x, np.array(y)


def _check_memory(count, shape, dtype):
    wanted = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not hasattr(os, "sysconf"):
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > 0.7 * memory:
        raise ValueError(
            f"{count:,} samples of shape {shape} take {wanted / 1e9:.1f} GB, "
            f"and this machine has {memory / 1e9:.1f} GB of memory. Take a "
            "part, such as `name:train[:10%]`, or an image folder, of which "
            "each batch is read when it is needed."
        )


def _hide_gpus():
    """TensorFlow only reads here: the GPU belongs to Keras's backend."""
    if keras.backend.backend() == "tensorflow":
        return
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        pass  # it is in use already


def _first_line(error):
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return re.sub(r"\s+", " ", text)


def require_tfds(name):
    """The module, or an error that says how to install it."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"The data set '{name}' comes from TensorFlow Datasets, which is "
            'not installed. Install it with `pip install "keras-saq[data]"`, '
            "or give an .npz with arrays x and y, or a folder with a folder "
            "of images per class."
        ) from error
    return tfds
