"""Arrays, image folders and TensorFlow Datasets, read and refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_saq.data import Batches
from keras_saq.data import ImageFiles
from keras_saq.data import Preprocessing
from keras_saq.data import Samples
from keras_saq.data import fit_image
from keras_saq.data import get_augmentation
from keras_saq.data import images
from keras_saq.data import open_source
from tests.cli.commands import write_image_folder


def samples(num=40):
    x = np.arange(num)[:, None].astype("float32")
    return Samples(x, np.arange(num) % 4, "numbers")


def test_arrays(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (12, 6, 4, 3), "uint8")
    y = np.arange(12, dtype="int64")[:, None] % 3
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y)
    source = open_source(tmp_path / "a.npz")
    assert (source.splits, source.test_split) == (("train", "test"), "test")
    loaded = source.load("train")
    assert loaded.num_classes == 3 and loaded.y.shape == (12,)
    np.testing.assert_array_equal(loaded.x, x)
    grey = source.load("train", (3, 2, 1))
    assert grey.x.shape == (12, 3, 2, 1) and grey.x.dtype == "uint8"
    few = source.load("train", limit=5)
    assert len(few) == 5 and all(row in x for row in few.x)
    with pytest.raises(ValueError, match="as many labels"):
        source.load("test")
    np.savez(tmp_path / "f.npz", x=x / 2, y=y)
    source = open_source(tmp_path / "f.npz")
    halves = source.load("train", (3, 2, 3)).x
    expected = (x / 2).reshape(12, 3, 2, 2, 2, 3).mean((2, 4))
    # The filter reaches over the edges of the four pixels.
    assert halves.shape == expected.shape
    assert np.corrcoef(halves.ravel(), expected.ravel())[0, 1] > 0.9
    with pytest.raises(ValueError, match="Only images of bytes"):
        source.load("train", (3, 2, 1))


def test_image_folder(tmp_path, monkeypatch):
    write_image_folder(tmp_path, per_class=4)
    source = open_source(tmp_path)
    assert source.splits == ("train", "test") and source.test_split == "test"
    kept = source.load("train", (8, 8, 1))
    assert kept.x.shape == (12, 8, 8, 1) and isinstance(kept.x, np.ndarray)
    assert kept.class_names == ("digit0", "digit1", "digit2")
    assert np.bincount(kept.y).tolist() == [4, 4, 4]
    assert source.load("test").x.shape == (12, 12, 12, 3)
    # Too large to be kept: read batch by batch, the same images.
    monkeypatch.setattr(images, "_KEPT_BYTES", 100)
    files = source.load("train", (8, 8, 1))
    assert isinstance(files.x, ImageFiles)
    np.testing.assert_array_equal(files.x[:], kept.x)
    rest, part = files.hold_out(0.25)
    assert isinstance(part.x, ImageFiles)
    assert np.bincount(part.y).tolist() == [1, 1, 1] and len(rest) == 9
    batch, labels = Batches(part, 2, Preprocessing(1 / 255))[0]
    assert batch.shape == (2, 8, 8, 1) and 0.5 < batch.max() <= 1
    flat = open_source(tmp_path / "train")
    assert flat.splits == ("train",) and flat.test_split is None
    assert len(flat.load("train", limit=5)) == 5


def test_image_folder_of_other_names(tmp_path):
    write_image_folder(tmp_path, 2, ("Training", "TESTING"))
    train = tmp_path / "Training"
    for name in ("a_without_images", ".ipynb_checkpoints"):
        (train / name).mkdir()
    hidden = train / "digit0/.ipynb_checkpoints"
    hidden.mkdir()
    Image.new("L", (4, 4)).save(hidden / "1.png")
    (train / "digit0/._1.png").write_bytes(b"no image")
    source = open_source(tmp_path)
    assert source.splits == ("training", "testing")
    assert (source.train_split, source.test_split) == source.splits
    assert source.class_names == ("digit0", "digit1", "digit2")
    for split in source.splits:
        assert source.load(split).y.tolist() == [0, 0, 1, 1, 2, 2]
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="both train and training"):
        open_source(tmp_path)
    (tmp_path / "train").rename(tmp_path / "test")
    Image.new("L", (4, 4)).save(tmp_path / "test/1.png")
    with pytest.raises(ValueError, match="no labels.*--test-split=none"):
        open_source(tmp_path).load("test")


def test_images_of_16_and_32_bits(tmp_path):
    values = np.array([[0, 128, 129], [257, 32896, 65535]], "uint16")
    deep = Image.fromarray(values)
    assert deep.mode == "I;16"
    deep.save(tmp_path / "16.png")
    for shape in ((2, 3, 1), (2, 3, 3), (None, None, None)):
        made = images.read_image(tmp_path / "16.png", shape)
        assert made[..., 0].tolist() == [[0, 0, 1], [1, 128, 255]]
    for mode in ("I", "F"):
        path = tmp_path / f"{mode}.tif"
        Image.new(mode, (4, 4)).save(path)
        with pytest.raises(ValueError, match=rf"{mode}.tif' .*mode {mode}"):
            images.read_image(path, (4, 4, 1))


def test_image_modes(tmp_path):
    Image.new("P", (4, 4)).save(tmp_path / "palette.png")
    Image.new("LA", (4, 4)).save(tmp_path / "alpha.png")
    paths = [tmp_path / "palette.png", tmp_path / "alpha.png"]
    for channels in (1, 3, 4):
        assert ImageFiles(paths, (2, 3, channels))[:].shape == (
            *(2, 2, 3),
            channels,
        )
    with pytest.raises(ValueError, match="has 7"):
        fit_image(np.zeros((4, 4, 3), "uint8"), (4, 4, 7))
    (tmp_path / "no.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a readable image"):
        ImageFiles([tmp_path / "no.png"], (2, 2, 3))[0]


def test_tensorflow_datasets(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (20, 6, 6, 3), "uint8")
    y = np.arange(20) % 4
    data = tf.data.Dataset.from_tensor_slices({"image": x, "label": y})
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(6, 6, 3)),
            "label": tfds.features.ClassLabel(names=list("abcd")),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="colours",
        version="1.0.0",
        features=features,
        split_datasets={"train": data.take(20), "validation": data.take(8)},
        data_dir=str(tmp_path),
        disable_shuffling=True,
    )
    for name, data_dir in (("colours", tmp_path), (tmp_path / "colours", None)):
        source = open_source(name, data_dir and str(data_dir))
        assert source.test_split == "validation"
        loaded = source.load("train")
        np.testing.assert_array_equal(loaded.x, x)
        np.testing.assert_array_equal(loaded.y, y)
        assert loaded.class_names == ("a", "b", "c", "d")
    # The newest version is not the last by name.
    for name in ("1.0.2", "1.0.10", "1.0.11.incompleteA"):
        shutil.copytree(tmp_path / "colours/1.0.0", tmp_path / "colours" / name)
        info = tmp_path / "colours" / name / "dataset_info.json"
        info.write_text(info.read_text().replace("1.0.0", name))
    source = open_source(tmp_path / "colours")
    assert str(source._builder.version) == "1.0.10"
    shutil.copytree(tmp_path / "colours/1.0.0", tmp_path / "sounds/1.0.0")
    with pytest.raises(ValueError, match="2 data sets: .*colours.*sounds"):
        open_source(tmp_path)
    source = open_source("colours:train[:50%]", str(tmp_path))
    half = source.load(source.train_split, (3, 3, 1))
    assert half.x.shape == (10, 3, 3, 1)
    assert len(source.load("train", limit=7)) == 7
    with pytest.raises(ValueError, match="has no split 'tset'"):
        source.load("tset")
    with pytest.raises(ValueError, match="no data set 'cifra10'"):
        open_source("cifra10", str(tmp_path))


def test_what_is_no_data_set(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_images/cat").mkdir(parents=True)
    np.savez(tmp_path / "other.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    for name, message in {
        "nothing.npz": "is not a readable .npz file",
        "broken.npz": "is not a readable .npz file",
        "other.npz": "arrays named x and y. It has: ['a', 'b']",
        "one.npy": "arrays x and y",
        "empty": "has no folders. Expected one per class",
        "no/such/folder": "is no data set: there is no such file or folder",
    }.items():
        with pytest.raises(ValueError) as error:
            open_source(tmp_path / name)
        assert message in str(error.value)
    with pytest.raises(ValueError, match="has no images. Expected files"):
        open_source(tmp_path / "no_images").load("train")
    write_image_folder(tmp_path / "split", per_class=1)
    unknown = tmp_path / "split/test/unknown"
    unknown.mkdir()
    Image.new("L", (4, 4)).save(unknown / "1.png")
    with pytest.raises(ValueError, match="classes \\['unknown'\\]"):
        open_source(tmp_path / "split").load("test")
    with pytest.raises(ValueError, match="has no split 'val'"):
        open_source(tmp_path / "split").load("val")


def test_held_out_part():
    rest, part = samples().hold_out(0.2, seed=3)
    assert np.bincount(part.y).tolist() == [2, 2, 2, 2]
    together = np.concatenate([rest.x, part.x])
    assert sorted(together.ravel().tolist()) == list(range(40))
    for fraction in (0, 1, 1.5, 0.95):
        with pytest.raises(ValueError):
            samples(4).hold_out(fraction)
    numbers = Samples(np.zeros((10, 2)), np.linspace(0, 1, 10), "regression")
    assert [len(s) for s in numbers.hold_out(0.3)] == [7, 3]
    assert numbers.num_classes == 0


def test_a_held_out_part_is_as_large_as_was_asked():
    numbers = np.random.default_rng(0).integers(0, 800, 1000)
    for labels in (numbers, numbers % 400, np.arange(1000) % 250):
        _, part = Samples(labels, labels, "many").hold_out(0.1)
        assert len(part) == 100
    labels = np.array([0] * 20 + [1] * 9 + [2])
    for seed in range(5):
        rest, part = Samples(labels, labels, "odd").hold_out(0.5, seed)
        assert np.bincount(rest.y).tolist()[2] == 1
        assert np.bincount(part.y)[0] == 10 and len(part) in (14, 15)
    rest, _ = Samples(labels, labels, "odd").hold_out(0.93)
    assert np.bincount(rest.y).min() == 1


def test_batches_depend_on_seed_and_epoch_alone():
    def noise(x, rng):
        return x + rng.random(x.shape, "float32")

    def batches(epoch, **kwargs):
        made = Batches(samples(), 16, augment=noise, shuffle=True, **kwargs)
        made.epoch = epoch
        return np.concatenate([made[i][0] for i in range(len(made))])

    first = batches(3)
    assert first.shape == (32, 1)  # whole batches only
    assert len(set(first.astype(int).ravel())) == 32
    np.testing.assert_array_equal(first, batches(3))
    assert (first != batches(4)).any() and (first != batches(3, seed=1)).any()
    assert batches(0, max_batches=1).shape == (16, 1)
    plain = Batches(samples(), 16)
    assert [len(plain[i][0]) for i in range(len(plain))] == [16, 16, 8]


def test_preprocessing_is_checked():
    x = np.ones((2, 3, 3, 3), "uint8")
    done = Preprocessing(0.5, (0.5, 0.0, 1.0), (1.0, 0.5, 2.0))(x)
    assert done.dtype == "float32"
    assert done[0, 0, 0].tolist() == [0.0, 1.0, -0.25]
    with pytest.raises(ValueError, match="one per channel"):
        Preprocessing(1.0, (1.0, 2.0))(x)
    for bad in ((float("nan"), 0.0, 1.0), (1.0, 0.0, (1.0, 0.0))):
        with pytest.raises(ValueError, match="`std` not zero"):
            Preprocessing(*bad)


def test_augmentations():
    x = np.zeros((64, 8, 8, 1), "float32")
    x[:, 2, 3] = 1.0
    places = {}
    for name in ("flip", "shift", "shift_flip"):
        made = get_augmentation(name, (8, 8, 1))(x, np.random.default_rng(0))
        _, rows, columns, _ = np.nonzero(made)
        places[name] = set(rows.tolist()), set(columns.tolist())
    assert places["flip"] == ({2}, {3, 4})
    assert places["shift"] == ({1, 2, 3}, {2, 3, 4})
    assert places["shift_flip"] == ({1, 2, 3}, {2, 3, 4, 5})
    assert get_augmentation("none", (4,)) is None
    with pytest.raises(ValueError, match="is for images"):
        get_augmentation("flip", (4,))
    with pytest.raises(ValueError, match="must be one of"):
        get_augmentation("mixup", (8, 8, 1))
