"""The statistics of batch norms, as means over batches."""

import keras


def average_statistics(model, norms, batches):
    """Gives batch norms the mean of their statistics over some batches.

    Every sample counts the same, also those of a smaller last batch.

    Runs the model in training mode; whatever else that moves (seeds, other
    statistics) is the caller's to keep.

    Args:
        model: a built Keras model.
        norms: BatchNormalization layers of it, trainable ones.
        batches: iterable of inputs.

    Returns:
        The number of batches.
    """
    momenta = [norm.momentum for norm in norms]
    count = seen = 0
    try:
        for batch in batches:
            size = len(keras.tree.flatten(batch)[0])
            # The mean of all so far.
            for norm in norms:
                norm.momentum = seen / (seen + size)
            model(batch, training=True)
            count, seen = count + 1, seen + size
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    return count
