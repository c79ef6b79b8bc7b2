"""The statistics of batch norms, as plain means over batches."""


def average_statistics(model, norms, batches):
    """Gives batch norms the mean of their statistics over some batches.

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
    count = 0
    try:
        for batch in batches:
            # The mean of all so far.
            for norm in norms:
                norm.momentum = count / (count + 1)
            model(batch, training=True)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    return count
