"""Picture of the bias grid: how far a bias that is rounded late moves."""

import keras
import numpy as np
from style import draw

from keras_saq.layers import Quantized
from keras_saq.layers.batch_normalization import bias_step
from keras_saq.layers.batch_normalization import slope_and_offset


def bias_grid(models):
    """Half a step of the bias, in steps of the output, of every channel."""
    found = {
        name: np.sort(np.concatenate(list(half_steps(models[f"{name} QAT"]))))
        for name in ("w4a8", "w2a4")
    }
    for name, values in found.items():
        print(name, len(values), np.median(values), values.max(), flush=True)

    def plot(axes, colors):
        for color, (name, values) in zip(("blue", "orange"), found.items()):
            share = 100 * np.arange(1, len(values) + 1) / len(values)
            axes.plot(values, share, color=colors[color], lw=1.8, label=name)
        axes.axvline(0.5, color=colors["gray"], lw=1, ls="--")
        axes.annotate(
            "half a step",
            (0.5, 4),
            xytext=(4, 0),
            textcoords="offset points",
            color=colors["gray"],
        )
        axes.set_xscale("log")
        axes.set_xlabel("largest shift of an output (its quantizer's steps)")
        axes.set_ylabel("channels with at most that (%)")
        axes.legend(loc="upper left")

    draw("bias-grid", plot, height=3.3)


def half_steps(model):
    """For each batch norm behind a convolution: g |a| / (2 s) by channel."""
    for layer in model.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        step, _ = bias_step(layer)
        slope, _ = slope_and_offset(
            layer, layer.moving_mean.value, layer.moving_variance.value
        )
        quantizer = quantizer_behind(layer)
        yield keras.ops.convert_to_numpy(
            step * keras.ops.abs(slope) / (2 * quantizer.scale)
        )


def quantizer_behind(layer):
    """The quantizer of what the layer makes, or of the activation on it."""
    while getattr(layer, "output_quantizer", None) is None:
        (node,) = layer._outbound_nodes
        layer = node.operation
        if not isinstance(layer, Quantized):
            raise ValueError(f"no quantizer behind {layer}")
    return layer.output_quantizer
