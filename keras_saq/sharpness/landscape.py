"""The loss along random directions around the weights, and its picture.

Source: filter normalization (Li et al., NeurIPS 2018, arXiv 1712.09913):
each filter d_i of a random direction gets the norm of the filter w_i of the
weights, d_i <- d_i / ||d_i|| * ||w_i||, so that networks of different weight
scales can be compared. A filter is what makes one output channel: all but
the last axis. Biases, normalization parameters and scales stay, as there.
The centre is the quantized point, Q(w) + a d1 + b d2.
"""

import dataclasses

import numpy as np

from keras_saq.sharpness.surface import Surface


@dataclasses.dataclass(frozen=True)
class Landscape:
    """Losses on a grid around the weights.

    Attributes:
        steps: float array of shape (points,): positions along a direction,
            in units of the weights.
        losses: float array of shape (points,) or (points, points), the first
            axis along the first direction.
    """

    steps: np.ndarray
    losses: np.ndarray

    @property
    def dimensions(self):
        """1 or 2."""
        return self.losses.ndim


def loss_landscape(
    model,
    data,
    dimensions=1,
    span=0.5,
    points=11,
    seed=0,
    batch_size=128,
    loss=None,
):
    """The loss of a model along one or two filter-normalised directions.

    Args:
        model: a compiled Keras model, quantized or float.
        data: as for `measure_sharpness`.
        dimensions: 1 or 2.
        span: how far to go to each side; 1 is the length of the weights.
        points: number of grid points along a direction, odd, so that the
            middle is the model itself.
        seed: of the directions. Equal seeds give two models of one
            architecture equal random numbers.
        batch_size: for arrays.
        loss: a Keras loss, in place of the compiled one.

    Returns:
        A `Landscape`; losses are in the units of the loss.

    Raises:
        ValueError: if `dimensions`, `points` or `span` cannot be, if the
            model has no loss or no scales yet, or if there is no data.

    Example:

    >>> import keras, numpy as np
    >>> from keras_saq.sharpness import loss_landscape
    >>> inputs = keras.Input((2,))
    >>> model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    >>> data = np.eye(2, dtype="float32"), np.zeros((2, 1))
    >>> found = loss_landscape(model, data, points=5, loss="mse")
    >>> found.losses.shape
    (5,)
    """
    if dimensions not in (1, 2):
        raise ValueError(
            f"`dimensions` must be 1 or 2. Received: dimensions={dimensions}"
        )
    if points < 3 or points % 2 == 0:
        raise ValueError(
            "`points` must be odd and at least 3, so that one of them is the "
            f"model itself. Received: points={points}"
        )
    if not 0 < span < np.inf:
        raise ValueError(
            f"`span` must be a finite number above 0. Received: span={span}"
        )
    surface = Surface(model, data, "weights", batch_size, loss)
    values = surface.points()
    rng = np.random.default_rng(seed)
    directions = [filter_normalized(values, rng) for _ in range(dimensions)]
    steps = np.linspace(-span, span, points)
    steps[points // 2] = 0.0
    shape = (points,) * dimensions
    losses = np.empty(shape)
    for index in np.ndindex(shape):
        displacement = surface.zero
        for i, direction in zip(index, directions):
            displacement = [
                np.float32(p + steps[i] * d)
                for p, d in zip(displacement, direction)
            ]
        losses[index] = surface.loss(displacement)
    return Landscape(steps, losses)


def filter_normalized(values, rng):
    """A random direction whose filters have the norms of those of `values`.

    Args:
        values: list of arrays; of one axis or none they get no direction.
        rng: a `numpy.random.Generator`.
    """
    directions = []
    for value in values:
        direction = rng.normal(size=value.shape)
        if value.ndim < 2:
            directions.append(np.zeros_like(value))
            continue
        axes = tuple(range(value.ndim - 1))
        size = np.sqrt((direction**2).sum(axis=axes, keepdims=True))
        wanted = np.sqrt((value**2).sum(axis=axes, keepdims=True))
        directions.append((direction / size * wanted).astype("float32"))
    return directions


def plot_loss_landscape(landscapes, path):
    """Draws landscapes beside or over one another, e.g. QAT beside SAQ.

    Needs matplotlib (`pip install keras-saq[plot]`).

    Args:
        landscapes: dict from a title to a `Landscape`, all of the same
            number of dimensions.
        path: the file to write; its suffix says the format.

    Returns:
        The path.

    Raises:
        ImportError: if matplotlib is missing.
        ValueError: if there is no landscape, or one and two dimensions are
            mixed.

    Example:

    >>> import numpy as np, tempfile
    >>> from keras_saq.sharpness import Landscape, plot_loss_landscape
    >>> steps = np.linspace(-1, 1, 5)
    >>> bowls = {n: Landscape(steps, k * steps**2)
    ...          for n, k in {"sharp": 4.0, "flat": 1.0}.items()}
    >>> path = plot_loss_landscape(bowls, tempfile.mkdtemp() + "/bowls.svg")
    """
    dimensions = {found.dimensions for found in landscapes.values()}
    if len(dimensions) != 1:
        raise ValueError(
            "`landscapes` must be a dict of at least one `Landscape`, all of "
            "the same number of dimensions. "
            f"Received dimensions: {sorted(dimensions)}"
        )
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib. Install it:\n\n"
            "    pip install keras-saq[plot]"
        ) from error
    if dimensions == {1}:
        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axis = figure.subplots()
        for title, found in landscapes.items():
            axis.plot(found.steps, found.losses, label=title)
        axis.set(xlabel="step along the direction", ylabel="loss")
        axis.legend()
    else:
        count = len(landscapes)
        figure = Figure(figsize=(4.2 * count, 3.8), layout="constrained")
        axes = figure.subplots(1, count, squeeze=False)[0]
        low = min(found.losses.min() for found in landscapes.values())
        high = max(found.losses.max() for found in landscapes.values())
        levels = np.linspace(low, max(high, low + 1e-9), 15)
        for axis, (title, found) in zip(axes, landscapes.items()):
            drawn = axis.contourf(
                found.steps, found.steps, found.losses.T, levels=levels
            )
            axis.set(title=title, xlabel="direction 1", ylabel="direction 2")
            axis.set_aspect("equal")
        figure.colorbar(drawn, ax=list(axes), label="loss")
    figure.savefig(path)
    return path
