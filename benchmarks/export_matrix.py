"""Whether exported files compute what they should: networks x bits x seeds.

Each network gets random weights, random batch norm statistics and scales from
calibration data, is exported, and run by LiteRT with XNNPACK. The file is
compared with the code-domain reference, output by output and, where a float
island is inside, tensor by tensor on the file's own integers.

    python benchmarks/export_matrix.py --output docs/export_matrix.md
    python benchmarks/export_matrix.py --networks residual,vit --bits w4a8
"""

import argparse
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Small networks: more threads only wait for each other on a busy machine.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import keras
import numpy as np

import keras_saq
from keras_saq.export.flatbuffer import to_bytes
from keras_saq.export.lower import lower_model
from keras_saq.export.verify import verify_content

layers = keras.layers
BITS = ("w8a8", "w6a8", "w4a8", "w3a8", "w2a8", "w4a4", "w2a2", "mixed")
CALIBRATION, SAMPLES = 64, 200


def _norm(x, activation="relu"):
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def _conv(x, filters, kernel=3, strides=1, activation="relu"):
    x = layers.Conv2D(filters, kernel, strides, padding="same", use_bias=False)(
        x
    )
    return _norm(x, activation)


def _head(x):
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def plain(x):
    for filters, strides in ((16, 1), (24, 2), (24, 1), (32, 2)):
        x = _conv(x, filters, strides=strides)
    return _head(layers.MaxPooling2D()(x))


def residual(x):
    x = _conv(x, 16)
    for filters, strides in ((16, 1), (24, 2), (32, 2)):
        y = _conv(x, filters, strides=strides)
        y = _conv(y, filters, activation=None)
        if strides != 1:
            x = _conv(x, filters, 1, strides, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    return _head(x)


def depthwise_separable(x):
    x = _conv(x, 16)
    for filters, strides in ((24, 1), (32, 2), (32, 1)):
        x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(
            x
        )
        x = _conv(_norm(x, "relu6"), filters, 1, activation="relu6")
    x = layers.SeparableConv2D(32, 3, padding="same", activation="relu")(x)
    return _head(x)


def concat(x):
    x = _conv(x, 16)
    for _ in range(3):
        y = _conv(x, 8)
        z = layers.Conv2D(8, 1)(x)
        x = layers.Concatenate()([x, y, z])
    return _head(layers.AveragePooling2D(2)(x))


def squeeze_excite(x):
    x = _conv(x, 16, activation="hard_swish")
    for gate in ("sigmoid", "hard_sigmoid"):
        y = _conv(x, 16, activation="swish")
        z = layers.GlobalAveragePooling2D(keepdims=True)(y)
        z = layers.Conv2D(4, 1, activation="relu")(z)
        z = layers.Conv2D(16, 1, activation=gate)(z)
        x = layers.Add()([x, layers.Multiply()([y, z])])
    return _head(x)


def transposed(x):
    x = skip = _conv(x, 12)
    x = _conv(layers.MaxPooling2D()(x), 16)
    x = layers.Conv2DTranspose(12, 3, 2, padding="same", activation="relu")(x)
    x = layers.Concatenate()([x, skip])
    x = layers.Conv2DTranspose(8, 2, 2)(x)
    x = layers.UpSampling2D()(x)
    return _head(_conv(x, 8))


def preactivation(x):
    x = layers.Conv2D(16, 3, padding="same")(x)
    for _ in range(3):
        y = layers.Conv2D(16, 3, padding="same", use_bias=False)(_norm(x))
        x = layers.Add()([x, y])
    return _head(_norm(x))


def vit(x):
    x = layers.Conv2D(32, 4, 4)(x)
    x = layers.Reshape((16, 32))(x)
    for _ in range(3):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(64, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(32)(y)])
    x = layers.LayerNormalization()(x)
    return layers.Dense(10)(layers.GlobalAveragePooling1D()(x))


def lstm(x):
    x = layers.Reshape((16, 48))(x)
    x = layers.Dense(24, activation="relu")(x)
    x = layers.LSTM(24, return_sequences=True)(x)
    return layers.Dense(10)(layers.LSTM(16)(x))


def deep(x):
    """Fifty convolutions, twenty-five sums."""
    x = _conv(x, 12)
    for _ in range(24):
        y = _conv(_conv(x, 12), 12, activation=None)
        x = layers.ReLU()(layers.Add()([x, y]))
    y = _conv(x, 12, 1, activation=None)
    return _head(layers.Add()([x, y]))


NETWORKS = {
    "plain": plain,
    "residual": residual,
    "depthwise-separable": depthwise_separable,
    "concat": concat,
    "squeeze-excite": squeeze_excite,
    "transposed": transposed,
    "pre-activation": preactivation,
    "vit": vit,
    "lstm": lstm,
    "deep": deep,
}


def make(name, seed):
    """A network with random weights and statistics, and calibration data."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3), name="image")
    model = keras.Model(inputs, NETWORKS[name](inputs))
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable, low, high in (
                (layer.gamma, 0.5, 1.5),
                (layer.beta, -0.3, 0.3),
                (layer.moving_mean, -0.3, 0.3),
                (layer.moving_variance, 0.5, 1.5),
            ):
                values = rng.uniform(low, high, variable.shape)
                signs = rng.choice([-1, 1], variable.shape, p=[0.1, 0.9])
                if variable is layer.gamma:
                    values = values * signs
                variable.assign(values)
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape) * 0.1)
    x = rng.normal(size=(CALIBRATION, 16, 16, 3)).astype("float32")
    return model, x


def policy(bits, model):
    """A preset, or one in which neighbouring layers have different bits."""
    if bits != "mixed":
        return bits
    pairs = ((4, 8), (2, 4), (8, 8), (3, 6), (6, 8), (2, 2))
    paths = [
        path
        for path, layer in keras_saq.policy.layer_paths(model)
        if layer.weights
    ]
    rules = [
        keras_saq.Rule(
            path=path.replace("(", r"\("),
            weight_bits=pairs[i % len(pairs)][0],
            activation_bits=pairs[i % len(pairs)][1],
        )
        for i, path in enumerate(paths)
    ]
    rest = keras_saq.Rule(weight_bits=4, activation_bits=8)
    return keras_saq.QuantizePolicy(rules=(*rules, rest))


def measure(name, bits, seed):
    """One line of the table, as a dict."""
    model, x = make(name, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        q = keras_saq.quantize_model(model, policy(bits, model), calibration=x)
        q.run_eagerly = True  # compiling takes longer than the one batch
        program = lower_model(q)
        content = to_bytes(program)
        rng = np.random.default_rng(seed + 100)
        x = rng.normal(size=(SAMPLES, 16, 16, 3)).astype("float32")
        parity = verify_content(
            content, name, q, program, x, per_layer=not program.is_exact
        )
    islands = [row for row in parity.layers if row.bound]
    exact = [row for row in parity.layers if not row.bound]
    return {
        "outputs": parity.num_outputs,
        "exact": program.is_exact,
        "reference": parity.reference_max_lsb,
        "inside": max((r.reference_max_lsb for r in exact), default=0.0),
        "islands": len(islands),
        "island": max((r.reference_max_lsb for r in islands), default=0.0),
        "keras": parity.max_lsb,
        "share": parity.exact,
        "undelegated": parity.undelegated,
        "bytes": len(content),
    }


def _row(name, bits, runs):
    """One line of Markdown for the seeds of a network and its bits."""
    largest = max(run["reference"] for run in runs)
    is_exact = runs[0]["exact"]
    good = all(
        run["reference"] == 0 if run["exact"] else run["inside"] == 0
        for run in runs
    ) and all(run["island"] <= 1 for run in runs)
    islands = "none"
    if not is_exact:
        worst = max(run["island"] for run in runs)
        islands = f"{runs[0]['islands']}, at most {worst:g}"
    outside = sorted({op for run in runs for op in run["undelegated"]})
    cells = [
        name,
        bits,
        f"{sum(run['outputs'] for run in runs):,}",
        f"{largest:g}",
        f"{max(run['inside'] for run in runs):g}",
        islands,
        f"{max(run['keras'] for run in runs):g}",
        f"{np.mean([run['share'] for run in runs]):.2%}",
        ", ".join(outside) or "all",
        f"{max(run['bytes'] for run in runs):,}",
    ]
    return f"| {' | '.join(cells)} |", good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--bits", default=",".join(BITS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", help="Markdown file for the table")
    flags = parser.parse_args()
    head = (
        "| network | bits | outputs | file − reference | on the file's own "
        "integers | inexact islands, steps | file − predict | equal | "
        "delegated | bytes |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    print(head)
    lines, failed, start = [head], [], time.time()
    for name in flags.networks.split(","):
        for bits in flags.bits.split(","):
            runs = [measure(name, bits, seed) for seed in range(flags.seeds)]
            line, good = _row(name, bits, runs)
            lines.append(line)
            print(line, flush=True)
            if not good:
                failed.append(f"{name} {bits}")
    verdict = (
        f"Not as promised: {', '.join(failed)}."
        if failed
        else (
            "Every exact kernel equals the reference; every island is within "
            "its bound."
        )
    )
    print(f"\n{verdict} {time.time() - start:.0f} s")
    if flags.output:
        text = "\n".join([*lines, "", verdict, ""])
        pathlib.Path(flags.output).write_text(text, encoding="utf-8")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
