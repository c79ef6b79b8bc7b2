"""Picture of a search: accuracy against bit operations."""

import numpy as np
from style import draw

from keras_saq.data import load_digits
from keras_saq.data import proxy_split
from keras_saq.search import Budget
from keras_saq.search import PolicySearch

BITS = (2, 3, 4, 6, 8)
FACTORS = (0.55, 0.7, 0.85, 1.0, 1.3, 1.8, 2.6)


def front(models):
    """Fronts of two methods on half of the digits, from one supernet."""
    data = load_digits()
    proxy = proxy_split((data.x_train, data.y_train), fraction=0.5, seed=0)
    test = data.x_test, data.y_test
    budgets = [Budget(bops=f"{factor}x w4a4") for factor in FACTORS]
    found, supernet = {}, None
    for method in ("seam", "uniform"):
        search = PolicySearch(
            models["float"],
            proxy,
            method,
            candidates=BITS,
            target="paper",
            epochs=10,
            seed=0,
            verbose=0,
        ).fit(budgets[3])
        # Both are measured with the weights that one search has trained.
        search.supernet = supernet = supernet or search.supernet
        found[method] = search.front(budgets, data=test)
        for point in found[method]:
            print(method, point.cost["bops"], point.accuracy, flush=True)

    def plot(axes, colors):
        for method, name, marker in (
            ("uniform", "orange", "s"),
            ("seam", "blue", "o"),
        ):
            x = np.array([p.cost["bops"] / 1e6 for p in found[method]])
            y = np.array([100 * p.accuracy for p in found[method]])
            x, places = np.unique(x, return_index=True)
            axes.plot(
                x,
                y[places],
                marker=marker,
                color=colors[name],
                lw=1.5,
                label={"seam": "SEAM-style search", "uniform": "equal bits"}[
                    method
                ],
            )
        axes.set_xlabel("bit operations of one image (M)")
        axes.set_ylabel("test accuracy (%)")
        axes.legend(loc="lower right")

    draw("front", plot, height=3.3)
