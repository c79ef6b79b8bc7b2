"""Proxy splits: balanced, deterministic, from every source the same."""

import sys
import types

import numpy as np
import pytest

from keras_saq.data import proxy_split
from keras_saq.data import shift_and_flip

tf = pytest.importorskip("tensorflow")


def arrays(num=300, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, num)
    x = rng.integers(0, 255, (num, 4, 4, 3)).astype("uint8")
    return x, y


def test_the_same_part_of_each_class():
    x, y = arrays()
    proxy = proxy_split((x, y), fraction=0.2, seed=3)
    for label, count in enumerate(np.bincount(y)):
        assert (proxy.y == label).sum() == max(1, round(0.2 * count))
    assert proxy.num_classes == 7
    assert proxy.x.dtype == "float32"
    again = proxy_split((x, y), fraction=0.2, seed=3)
    np.testing.assert_array_equal(proxy.x, again.x)
    other = proxy_split((x, y), fraction=0.2, seed=4)
    assert (proxy.x[:20] != other.x[:20]).any()


@pytest.mark.parametrize("form", ["samples", "batches", "tfds"])
def test_every_source_gives_the_same_split(form, monkeypatch):
    x, y = arrays()
    expected = proxy_split((x, y), fraction=0.1, seed=1)
    source = tf.data.Dataset.from_tensor_slices((x, y))
    if form == "batches":
        source = source.batch(32)
    elif form == "tfds":
        fake = types.ModuleType("tensorflow_datasets")
        samples = source
        fake.load = lambda name, split, as_supervised: samples
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
        source = "made_up"
    proxy = proxy_split(source, fraction=0.1, seed=1)
    np.testing.assert_array_equal(proxy.x, expected.x)
    np.testing.assert_array_equal(proxy.y, expected.y)


def test_preprocessing_and_description():
    x, y = arrays()
    proxy = proxy_split(
        (x, y), 0.5, preprocess=lambda x: x / np.float32(255), name="noise"
    )
    assert proxy.x.max() <= 1
    assert proxy.describe() == {
        "name": "noise",
        "fraction": 0.5,
        "seed": 0,
        "samples": len(proxy),
        "classes": 7,
    }


def test_what_is_refused():
    x, y = arrays()
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        proxy_split((x, y), fraction=1.5)
    with pytest.raises(ValueError, match="one integer per sample"):
        proxy_split((x, y.astype("float32")))
    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(300).take(150)
    short = shuffled.filter(lambda x, y: tf.random.uniform(()) < 0.5)
    with pytest.raises(ValueError, match="same samples in the same order"):
        for _ in range(5):
            proxy_split(short, 1.0)


def test_images_are_moved_and_mirrored():
    x = np.zeros((200, 6, 6, 1), "float32")
    x[:, 2, 3] = 1.0  # one bright pixel
    y = shift_and_flip(x, np.random.default_rng(0), pixels=1)
    _, rows, columns, _ = np.nonzero(y)
    assert y.shape == x.shape and len(rows) == 200
    assert set(rows) == {1, 2, 3}
    assert set(columns) == {1, 2, 3, 4}  # 3 +- 1, and mirrored 2 +- 1
