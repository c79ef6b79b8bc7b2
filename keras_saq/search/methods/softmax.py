"""`"seam"` and `"ce"`: what a trained supernet thinks of its candidates."""

import numpy as np
from keras import ops


def softmax(search):
    """log p of each candidate, after training the supernet.

    The best assignment within the budget is then the most probable one, as
    the choices are independent.
    """
    search.train_supernet(with_margin=search.method == "seam")
    return log_probabilities(search.supernet)


def log_probabilities(supernet):
    """List with an array for each choice, at the temperature 1."""
    return [
        _log_softmax(ops.convert_to_numpy(choice.logits))
        for choice in supernet.choices
    ]


def _log_softmax(logits):
    logits = logits.astype("float64")
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())
