"""`reconstruct`: accurate with few bits, without labels or training."""

import dataclasses

import keras
import numpy as np

from keras_saq.models.calibration import first_few
from keras_saq.models.calibration import first_samples
from keras_saq.models.calibration import quantized_layers
from keras_saq.models.calibration import require_calibrated
from keras_saq.models.compare import measure
from keras_saq.models.wrapper import inner_model
from keras_saq.reconstruction.block import BlockTrainer
from keras_saq.reconstruction.block import run_in_batches
from keras_saq.reconstruction.blocks import find_blocks
from keras_saq.table import format_table

# As many samples are compared with the float model when all is done.
_COMPARED = 32


@dataclasses.dataclass(frozen=True)
class BlockError:
    """What reconstruction did to one block.

    Attributes:
        name: of the last layer of the block.
        before: squared error of its output, as a share of the variance, given
            what the blocks before it make by now.
        after: the same with what was learned.
    """

    name: str
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What `reconstruct` did; printed, a table.

    Attributes:
        blocks: a `BlockError` for each block, first to last.
    """

    blocks: tuple

    def __str__(self):
        rows = [
            (row.name, f"{row.before:.5f}", f"{row.after:.5f}")
            for row in self.blocks
        ]
        return format_table(("block", "error before", "after"), rows)


def reconstruct(
    q,
    model,
    data,
    steps=800,
    batch_size=32,
    learning_rate=0.1,
    range_learning_rate=0.002,
    blocks=None,
    sample_weight=None,
    seed=0,
    verbose=1,
):
    """Learns the rounding of weights and the ranges of activations.

    Block after block, the quantized network is made to compute what the float
    one computes, on samples without labels: whether each weight is rounded up
    or down is learned (AdaRound, arXiv 2004.10568), and so are the scales of
    the activations, see `keras_saq.reconstruction.block`. No weight moves by
    more than a step of its grid. A block that gets no better stays as it is.
    The result is exported and trained like any quantized model.

    Args:
        q: a calibrated model from `quantize_model`; it is changed.
        model: the float model that it was made from.
        data: inputs, as for `keras_saq.calibrate`. Some hundred samples; the
            first 512 are used.
        steps: steps per block.
        batch_size: samples per step.
        learning_rate: of the rounding.
        range_learning_rate: of the logarithms of the activations' scales.
        blocks: names of the layers that blocks end with. `None`: residual
            and attention blocks are found from the graph, and a model that
            is no graph of layers is one block.
        sample_weight: a weight per sample, e.g. of the time steps of a
            diffusion model.
        seed: of the order of the samples.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        A `Reconstruction`: the error of each block before and after.

    Raises:
        ValueError: if `q` is not quantized or has no scales, if the data do
            not fit, or if no block can end at one of `blocks`.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(16, activation="relu"),
    ...     keras.layers.Dense(4),
    ... ])
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> found = keras_saq.reconstruct(q, model, x, steps=20, verbose=0)
    >>> len(found.blocks), all(b.after <= b.before for b in found.blocks)
    (2, True)
    """
    q, model = inner_model(q), inner_model(model)
    if not quantized_layers(q):
        raise ValueError(
            "`reconstruct` needs a quantized model and the float model that "
            f"it was made from. Received: '{q.name}', which has no quantized "
            "layer. Call it as\n\n"
            "    q = keras_saq.quantize_model(model, policy, calibration=x)\n"
            "    keras_saq.reconstruct(q, model, x)"
        )
    require_calibrated(q, "be reconstructed")
    samples = first_samples(q, data)
    arrays = [
        keras.ops.convert_to_numpy(a) for a in keras.tree.flatten(samples)
    ]
    weight = _checked_weight(sample_weight, len(arrays[0]))
    found = find_blocks(q, model, blocks)
    bar = keras.utils.Progbar(
        len(found) * steps, verbose=verbose, unit_name="step"
    )
    random = np.random.default_rng(seed)
    inputs = floats = arrays
    rows = []
    for number, block in enumerate(found):
        targets = run_in_batches(block.float_model, floats, batch_size)
        trainer = BlockTrainer(
            block.model, steps, learning_rate, range_learning_rate, batch_size
        )
        errors = trainer.train(
            inputs, targets, weight, random, lambda: bar.add(1)
        )
        bar.update((number + 1) * steps)
        rows.append(BlockError(block.name, *errors))
        floats = targets
        inputs = run_in_batches(block.model, inputs, batch_size)
    _measure_again(q, model, samples)
    return Reconstruction(tuple(rows))


def _measure_again(q, model, samples):
    """What was measured when the model was quantized holds no more."""
    if getattr(q, "comparison", None) is not None:
        some = first_few(model, samples, _COMPARED)
        q.comparison = measure(model, q, some, layers=False)


def _checked_weight(weight, count):
    if weight is None:
        return None
    weight = np.asarray(weight, "float32")
    if weight.ndim != 1 or len(weight) < count or (weight < 0).any():
        raise ValueError(
            "`sample_weight` must have one number of at least 0 for each "
            f"sample. Expected: shape ({count},). Received: {weight.shape}"
        )
    weight = weight[:count]
    return weight / max(float(weight.mean()), 1e-12)
