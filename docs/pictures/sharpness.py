"""Pictures of the loss: its landscape, and what each case can move."""

import keras
import numpy as np
from networks import RHO
from style import draw

from keras_saq.data import load_digits
from keras_saq.sharpness import loss_landscape
from keras_saq.sharpness import measure_sharpness
from keras_saq.sharpness.measure import norm
from keras_saq.sharpness.surface import Surface

NUM_DIRECTIONS = 5


def landscape(models):
    """The loss along random directions around QAT's and SAQ's minimum."""
    data = load_digits()
    test = data.x_test, data.y_test
    found, rises = {}, {}
    for method in ("QAT", "SAQ"):
        model = models[f"w2a4 {method}"]
        lines = [
            loss_landscape(
                model, test, span=0.5, points=21, seed=seed, batch_size=497
            )
            for seed in range(NUM_DIRECTIONS)
        ]
        found[method] = lines
        rises[method] = measure_sharpness(
            model, test, rho=RHO, eigenvalue=False, batch_size=497
        )
        print(f"{method}: {rises[method]}", flush=True)

    def plot(axes, colors):
        for name, (method, lines) in zip(("orange", "blue"), found.items()):
            losses = np.array([line.losses for line in lines])
            for row in losses:
                axes.plot(
                    lines[0].steps, row, color=colors[name], lw=0.7, alpha=0.5
                )
            axes.plot(
                lines[0].steps,
                losses.mean(axis=0),
                color=colors[name],
                lw=2.2,
                label=f"{method}, mean of {NUM_DIRECTIONS} directions",
            )
        axes.set_xlabel("step along a direction (lengths of the filters)")
        axes.set_ylabel("test loss (nats)")
        axes.legend(loc="upper center")
        axes.set_ylim(bottom=0)

    draw("landscape", plot, height=3.4)


def cases(models):
    """Share of weights that a perturbation moves, by case and radius."""
    data = load_digits()
    model = models["w4a8 QAT"]
    surface = Surface(
        model, (data.x_train, data.y_train), ("weights",), batch_size=1300
    )
    _, gradient = surface.gradient()
    layers = weight_layers(model)
    radii = np.geomspace(0.003, 3, 13)
    moved = np.array(
        [moved_weights(layers, surface, gradient, r) for r in radii]
    )
    print(np.round(100 * moved, 2), flush=True)

    def plot(axes, colors):
        labels = (
            "case 1: Q(w) + ε(w)",
            "case 2: Q(w + ε(w))",
            "case 3: Q(w) + ε(Q(w))",
        )
        looks = (("green", "--"), ("orange", "-"), ("blue", "-"))
        for share, label, (name, style) in zip(moved.T, labels, looks):
            axes.plot(
                radii,
                100 * share,
                style,
                marker="o",
                ms=3,
                color=colors[name],
                label=label,
            )
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)
        axes.set_xlabel("radius ρ (units of the weights)")
        axes.set_ylabel("weights that move (%)")
        axes.legend(loc="center left", bbox_to_anchor=(0, 0.6))

    draw("cases", plot, height=3.3)


def moved_weights(layers, surface, gradient, rho):
    """Shares of all weights that move in case 1, 2 and 3."""
    eps = {
        id(p.variable): rho * g / norm(gradient)
        for p, g in zip(surface.participants, gradient)
    }
    masked = {}
    for layer in layers:
        weight = keras.ops.convert_to_numpy(layer.kernel)
        quantizer = layer.weight_quantizer("kernel")
        units = weight / keras.ops.convert_to_numpy(
            quantizer.scale_for(weight.shape)
        )
        inside = (units >= quantizer.qmin) & (units <= quantizer.qmax)
        masked[id(layer.kernel)] = eps[id(layer.kernel)] * inside
    # The straight-through gradient at w is zero where w is clipped.
    length = norm(list(masked.values()))
    count = np.zeros(3)
    total = 0
    for layer in layers:
        weight = keras.ops.convert_to_numpy(layer.kernel)
        quantizer = layer.weight_quantizer("kernel")
        first = masked[id(layer.kernel)] * rho / length
        count += [
            np.count_nonzero(first),
            np.count_nonzero(
                quantizer.codes(weight + first) - quantizer.codes(weight)
            ),
            np.count_nonzero(eps[id(layer.kernel)]),
        ]
        total += weight.size
    return count / total


def weight_layers(model):
    """Layers with a quantized kernel."""
    return [
        layer
        for layer in model._flatten_layers()
        if "kernel" in getattr(layer, "weight_names", ())
    ]
