"""`"mpiq"`: the first-order effect of the noise that bits add.

MPIQ (arXiv 2207.10083; only its abstract was at hand) looks for bits whose
noise lowers the loss without training. A reconstruction, to first order:

    score_l(b) = - <dL/dx_l, Q_b(x_l) - Q_max(x_l)>

with x_l what a layer reads, or its weights. In a mixture that is
-(dL/dp_b - dL/dp_max), so that one backward pass has the scores of all groups
and candidates.
"""

import keras
import numpy as np
from keras import ops

from keras_saq.search.choice import probability_scope
from keras_saq.sharpness.surface import backend_differentiate


def mpiq(search):
    """Minus the first-order change of the loss."""
    supernet, groups = search.prepare_supernet(), search.space.groups
    differentiate = backend_differentiate()
    certain = [np.eye(len(g.bits), dtype="float32")[-1] for g in groups]
    totals = [np.zeros(len(g.bits)) for g in groups]
    count = min(search.num_samples, len(search.proxy.x))
    progress = keras.utils.Progbar(count, verbose=search.verbose)
    for start in range(0, count, search.batch_size):
        stop = min(start + search.batch_size, count)
        x = ops.convert_to_tensor(search.proxy.x[start:stop])
        y = ops.convert_to_tensor(search.proxy.y[start:stop])

        def loss(points):
            with probability_scope(supernet.choices, points):
                outputs = supernet.model(x, training=False)
            # A loss function, unlike a loss object, gives a value per sample.
            return ops.mean(search.loss(y, outputs)), ()

        points = [ops.convert_to_tensor(p) for p in certain]
        _, _, gradients = differentiate(loss, points)
        for total, gradient in zip(totals, gradients):
            if gradient is not None:
                total += (stop - start) * ops.convert_to_numpy(gradient)
        progress.add(stop - start)
    return [-(total - total[-1]) / count for total in totals]
