"""Pictures of one quantizer: its grid, weights on it, the error of a scale."""

import keras
import numpy as np
import tensorflow as tf
from style import draw

from keras_saq.quantizers import LSQ
from keras_saq.quantizers.fake_quant import fake_quantize
from keras_saq.quantizers.initial_scale import initial_scale

SCALE = 0.25
BITS = 3


def grid():
    """The forward pass of a quantizer and its two gradients."""
    quantizer = LSQ(BITS, narrow_range=True)
    low, high = quantizer.qmin, quantizer.qmax
    x = tf.linspace(-1.2, 1.2, 2401)
    scale = tf.fill(x.shape, SCALE)
    with tf.GradientTape() as tape:
        tape.watch([x, scale])
        y = fake_quantize(x, scale, low, high)
    by_x, by_scale = tape.gradient(y, [x, scale])

    def plot(axes, colors):
        values, x_gradient, scale_gradient = axes
        values.plot(x, x, color=colors["gray"], lw=1, ls="--", label="x")
        values.plot(x, y, color=colors["blue"], lw=1.8, label="y")
        values.set_ylabel("y (units of x)")
        values.set_title(
            f"y = s · round(clip(x / s, {low}, {high})), s = {SCALE}"
        )
        values.legend(loc="upper left")
        x_gradient.plot(x, by_x, color=colors["blue"], lw=1.8)
        x_gradient.set_ylabel("∂y/∂x (–)")
        x_gradient.set_title("straight-through gradient of x")
        scale_gradient.plot(x, by_scale, color=colors["orange"], lw=1.4)
        scale_gradient.set_ylabel("∂y/∂s (–)")
        scale_gradient.set_title("gradient of the scale")
        scale_gradient.set_xlabel("x (its own units)")
        for a in axes:
            for edge in (low * SCALE, high * SCALE):
                a.axvline(edge, color=colors["faint"], lw=1, zorder=0)

    draw(
        "grid",
        plot,
        height=5.6,
        rows=3,
        sharex=True,
        gridspec_kw={"height_ratios": [2, 1, 1.3]},
    )


def weights(models):
    """Latent weights of one layer in units of their scales, after training."""
    found = {}
    for bits, name in ((4, "w4a8 QAT"), (2, "w2a4 QAT")):
        layer = kernel_layer(models[name])
        quantizer = layer.weight_quantizer("kernel")
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        scale = keras.ops.convert_to_numpy(
            quantizer.scale_for(layer.kernel.shape)
        )
        found[bits] = (kernel / scale).ravel(), quantizer

    def plot(axes, colors):
        for a, (bits, (units, quantizer)) in zip(axes, found.items()):
            low, high = quantizer.qmin, quantizer.qmax
            reach = max(abs(units.min()), abs(units.max()))
            bins = np.arange(-np.ceil(reach) - 0.05, np.ceil(reach) + 0.1, 0.1)
            for code in range(low, high + 1):
                a.axvline(code, color=colors["orange"], lw=1, zorder=0)
            # One path instead of a hundred bars: a small file.
            a.hist(units, bins, color=colors["blue"], histtype="stepfilled")
            a.set_xticks(range(low, high + 1, 1 if bits == 2 else 2))
            clipped = np.mean((units < low) | (units > high))
            a.set_title(
                f"{bits} bits: codes {low} to {high}, "
                f"{100 * clipped:.1f} % beyond the ends"
            )
            a.set_ylabel("weights (number)")
        axes[-1].set_xlabel("latent weight (scales of its channel)")

    draw("weights", plot, height=4.6, rows=2)


def scale_error(models):
    """Squared rounding error of a kernel against the scale."""
    layer = kernel_layer(models["w4a8 QAT"])
    kernel = keras.ops.convert_to_numpy(layer.kernel).ravel()[None]
    relative = np.geomspace(0.05, 1.2, 120)
    curves = {}
    for bits in (2, 3, 4, 8):
        top = 2 ** (bits - 1) - 1
        largest = np.abs(kernel).max() / top
        errors = [
            np.mean((fake(kernel, largest * r, top) - kernel) ** 2)
            for r in relative
        ]
        chosen = initial_scale(kernel, -top, top, "mse")[0]
        curves[bits] = (
            np.array(errors) / np.mean(kernel**2),
            chosen / largest,
            np.mean((fake(kernel, chosen, top) - kernel) ** 2)
            / np.mean(kernel**2),
        )

    def plot(axes, colors):
        names = ("orange", "green", "blue", "gray")
        for name, (bits, (errors, place, error)) in zip(names, curves.items()):
            color = colors[name]
            axes.plot(relative, errors, color=color, lw=1.8)
            axes.plot(place, error, "o", color=color)
            axes.annotate(
                f"{bits} bits",
                (relative[-1], errors[-1]),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=color,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(
            [0.05, 0.1, 0.2, 0.5, 1], [".05", ".1", ".2", ".5", "1"]
        )
        axes.minorticks_off()
        axes.margins(x=0.02)
        axes.set_xlim(0.05, 1.9)
        axes.set_xlabel("scale (of the one that clips nothing)")
        axes.set_ylabel("squared error (of the mean square)")

    draw("scale-error", plot, height=3.3)


def fake(kernel, scale, top):
    """The kernel on the grid of a scale."""
    return keras.ops.convert_to_numpy(
        fake_quantize(kernel.astype("float32"), float(scale), -top, top)
    )


def kernel_layer(model):
    """The last 1x1 convolution: 64 x 64 weights."""
    found = [
        layer
        for layer in model._flatten_layers()
        if getattr(layer, "kernel", None) is not None
        and tuple(layer.kernel.shape) == (1, 1, 64, 64)
    ]
    return found[-1]
