"""`"sensitivity"`: what each group costs when it alone has few bits.

All other groups keep their most bits, as in HAWQ's and MCT's sensitivity
analyses; the effects of groups are taken to add up. Nothing is trained.
"""

import keras
import numpy as np


def sensitivity(search):
    """Minus the rise of the loss, or minus the change of the outputs."""
    supernet, groups = search.prepare_supernet(), search.space.groups
    x, y = search.proxy.x, search.proxy.y
    chosen = np.random.default_rng(search.seed).permutation(len(x))
    chosen = np.sort(chosen[: search.num_samples])
    x, y = x[chosen], y[chosen]
    supernet.model.compile(loss=search.loss)
    highest = np.array([len(g.bits) - 1 for g in groups])

    def measure(assignment, reference=None):
        with supernet.decided(assignment) as model:
            if search.sensitivity == "loss":
                return model.evaluate(x, y, batch_size=256, verbose=0)
            outputs = model.predict(x, batch_size=256, verbose=0)
        if reference is None:
            return outputs
        return float(np.mean(np.square(outputs - reference)))

    before = measure(highest)
    total = sum(len(g.bits) - 1 for g in groups)
    progress = keras.utils.Progbar(total, verbose=search.verbose)
    scores = []
    for g, group in enumerate(groups):
        values = np.zeros(len(group.bits))
        for i in range(len(group.bits) - 1):
            assignment = highest.copy()
            assignment[g] = i
            if search.sensitivity == "loss":
                values[i] = before - measure(assignment)
            else:
                values[i] = -measure(assignment, before)
            progress.add(1)
        scores.append(values)
    return scores
