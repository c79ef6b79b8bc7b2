"""The margin term against NumPy, and what it is for."""

import numpy as np
from keras import ops

from keras_saq.search.margin import LargeMargin


def oracle(z, labels, centres, scale, margin):
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    cosines = z @ centres.T
    total = 0.0
    for cosine, label in zip(cosines, labels):
        own = np.exp(scale * (cosine[label] - margin))
        others = np.exp(scale * np.delete(cosine, label)).sum()
        total -= np.log(own / (own + others))
    return total / len(z)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_equals_its_oracle():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(16, 3, 3, 8)).astype("float32")
    labels = rng.integers(0, 4, 16)
    centres = unit(rng.normal(size=(5, 8)))
    term = LargeMargin(5, 8, scale=16.0, margin=0.2)
    term.set_centres(3.0 * centres)
    z = maps.astype("float64").mean(axis=(1, 2))
    loss = float(
        term(ops.convert_to_tensor(maps), ops.convert_to_tensor(labels))
    )
    np.testing.assert_allclose(
        loss, oracle(z, labels, centres, 16.0, 0.2), rtol=1e-5
    )
    # The centres have moved, but not that of the class that was not there.
    z = unit(z)
    expected = centres.copy()
    for k in range(4):
        moved = 0.9 * centres[k] + 0.1 * z[labels == k].mean(axis=0)
        expected[k] = moved / np.linalg.norm(moved)
    np.testing.assert_allclose(
        ops.convert_to_numpy(term.centres), expected, rtol=1e-4, atol=1e-5
    )


def test_labels_can_be_columns_or_rows():
    rng = np.random.default_rng(0)
    z = ops.convert_to_tensor(rng.normal(size=(6, 4)), "float32")
    term = LargeMargin(3, 4)
    term.set_centres(rng.normal(size=(3, 4)))
    labels = np.array([0, 2, 1, 1, 0, 2])
    values = [
        float(term(z, ops.convert_to_tensor(form), update=False))
        for form in (labels, labels[:, None], np.eye(3)[labels])
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_falls_as_classes_turn_apart_and_as_they_become_compact():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = rng.normal(size=(60, 2))

    def loss(angle, spread):
        means = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
        z = means[labels] + spread * noise
        term = LargeMargin(2, 2)
        term.set_centres(means)
        return float(term(ops.convert_to_tensor(z, "float32"), labels))

    apart = [loss(angle, 0.05) for angle in (0.2, 0.5, 1.0, 2.0, 3.0)]
    assert apart == sorted(apart, reverse=True)
    compact = [loss(1.0, spread) for spread in (0.6, 0.3, 0.1)]
    assert compact == sorted(compact, reverse=True)
