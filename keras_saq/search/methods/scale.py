"""`"scale"`: learned step sizes as importance, the LIMPQ way.

LIMPQ (Tang et al., ECCV 2022, arXiv 2203.08368) trains one network with a step
size for each layer and number of bits, and takes the step size as how much the
layer loses at these bits. The released code minimises

    sum_l  I_a[l, bits of the input] + 2 * I_w[l, bits of the weights]

which is done here. To train all step sizes in one go, each step draws one
candidate per group at random.
"""

import numpy as np
from keras import ops

from keras_saq.search.mixture import Mixture

_WEIGHT_FACTOR = 2.0


def scale(search):
    """Minus the importance: the learned scale, averaged over channels."""
    search.train_supernet(with_margin=False, sample=True)
    importance = [np.zeros(len(g.bits)) for g in search.space.groups]
    count = np.zeros(len(importance))
    index = {id(c): i for i, c in enumerate(search.supernet.choices)}
    for layer in search.supernet.model._flatten_layers():
        if not isinstance(layer, Mixture):
            continue
        group = index[id(layer.choice)]
        scales = ops.convert_to_numpy(layer.scales).astype("float64")
        scales = scales.reshape(len(scales), -1).mean(axis=1)
        importance[group] += scales
        count[group] += 1
    return [
        -values
        / max(n, 1)
        * (_WEIGHT_FACTOR if group.kind == "weights" else 1.0)
        for values, n, group in zip(importance, count, search.space.groups)
    ]
