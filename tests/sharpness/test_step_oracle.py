"""SAQ's update against an independent NumPy implementation.

Two dense layers, quantized weights and activations, biases on their grid,
written out by hand: forward, backward, the joint norm, the second pass and
the SGD update of case 3 of the paper: L(Q(w) + eps), eps = rho * G / ||G||.
"""

import keras
import numpy as np
import pytest

import keras_saq

layers = keras.layers
LEARNING_RATE = 0.1


margins = []


def margin(v, qmin, qmax):
    """Notes how far `v` keeps from rounding ties and from the range's ends.

    Closer than the last bits of float32 the two implementations may differ by
    a whole step; the test takes data that stays away.
    """
    v = v[v != 0]  # behind a ReLU; no rounding makes anything else of it
    ties = np.abs(v - np.floor(v) - 0.5)
    ends = np.minimum(np.abs(v - qmin), np.abs(v - qmax))
    margins.append(min(ties.min(), ends.min()))


def quantize(x, scale, qmin, qmax):
    margin(x / scale, qmin, qmax)
    codes = np.rint(np.clip(x / scale, qmin, qmax))
    return (codes * scale).astype("float32")


def quantize_backward(x, scale, qmin, qmax, dy):
    """dx (straight through) and d(log scale), per output channel or all."""
    v = x / scale
    inside = (v >= qmin) & (v <= qmax)
    codes = np.rint(np.clip(v, qmin, qmax))
    dlog = dy * scale * (codes - np.where(inside, v, 0))
    return dy * inside, dlog.sum(axis=0) if np.ndim(scale) else dlog.sum()


RANGE = {"in": (-8, 7), "mid": (0, 15), "out": (-128, 127), "w": (-7, 7)}


class Oracle:
    """Parameters: w1 b1 w2 b2, log scales of weights and activations."""

    def __init__(self, parameters):
        self.p = {k: v.astype("float32") for k, v in parameters.items()}

    def forward(self, p, eps, x):
        scale = {k: np.exp(p[f"log_{k}"]) for k in ("in", "mid", "out")}
        c = {"x": x, "scale": scale}
        c["xq"] = quantize(x, scale["in"], *RANGE["in"])
        c["wq1"] = quantize(p["w1"], np.exp(p["log_w1"]), *RANGE["w"])
        c["wq2"] = quantize(p["w2"], np.exp(p["log_w2"]), *RANGE["w"])
        c["we1"], c["we2"] = c["wq1"] + eps["w1"], c["wq2"] + eps["w2"]
        g1 = scale["in"] * np.exp(p["log_w1"])
        g2 = scale["mid"] * np.exp(p["log_w2"])
        margin(p["b1"] / g1, -1e9, 1e9)
        margin(p["b2"] / g2, -1e9, 1e9)
        b1 = g1 * np.rint(p["b1"] / g1)
        b2 = g2 * np.rint(p["b2"] / g2)
        before_relu = c["xq"] @ c["we1"] + b1
        margins.append(np.abs(before_relu).min())
        c["h"] = np.maximum(before_relu, 0)
        c["hq"] = quantize(c["h"], scale["mid"], *RANGE["mid"])
        c["z"] = c["hq"] @ c["we2"] + b2
        c["y"] = quantize(c["z"], scale["out"], *RANGE["out"])
        return c

    def backward(self, p, c, target):
        d = {}
        dy = 2 * (c["y"] - target) / target.size
        scale = c["scale"]
        dz, d["log_out"] = quantize_backward(
            c["z"], scale["out"], *RANGE["out"], dy
        )
        d["b2"], d["wq2"] = dz.sum(axis=0), c["hq"].T @ dz
        dh, d["log_mid"] = quantize_backward(
            c["h"], scale["mid"], *RANGE["mid"], dz @ c["we2"].T
        )
        dh = dh * (c["h"] > 0)
        d["b1"], d["wq1"] = dh.sum(axis=0), c["xq"].T @ dh
        _, d["log_in"] = quantize_backward(
            c["x"], scale["in"], *RANGE["in"], dh @ c["we1"].T
        )
        for i in "12":
            d[f"w{i}"], d[f"log_w{i}"] = quantize_backward(
                p[f"w{i}"], np.exp(p[f"log_w{i}"]), *RANGE["w"], d[f"wq{i}"]
            )
        return d

    def step(self, x, target, rho):
        none = {"w1": 0.0, "w2": 0.0}
        d = self.backward(self.p, self.forward(self.p, none, x), target)
        moved = ["wq1", "wq2", "b1", "b2", "log_in", "log_mid", "log_out"]
        norm = np.sqrt(sum(np.square(d[k]).sum() for k in moved))
        factor = rho / (norm + 1e-12)
        eps = {"w1": factor * d["wq1"], "w2": factor * d["wq2"]}
        perturbed = dict(self.p)
        for name in moved[2:]:
            perturbed[name] = self.p[name] + factor * d[name]
        c = self.forward(perturbed, eps, x)
        d = self.backward(perturbed, c, target)
        for name in self.p:
            self.p[name] = self.p[name] - LEARNING_RATE * d[name]


def build(seed):
    """The network, its parameters by the oracle's names, and data."""
    inputs = keras.Input((6,))
    x = layers.Dense(5, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    x = rng.normal(size=(16, 6)).astype("float32")
    target = rng.normal(size=(16, 3)).astype("float32")
    policy = keras_saq.QuantizePolicy.preset("w4a4", first_last_bits=None)
    q = keras_saq.quantize_model(model, policy, calibration=x)
    first, second = q.layers[1:]
    for quantizer in (*first.quantizers, *second.quantizers):
        # Not where an extreme value is exactly the last code.
        quantizer.log_scale.assign(quantizer.log_scale - 0.0517)
    variables = {
        "w1": first.kernel,
        "b1": first.bias,
        "w2": second.kernel,
        "b2": second.bias,
        "log_w1": first.kernel_quantizer.log_scale,
        "log_w2": second.kernel_quantizer.log_scale,
        "log_in": first.input_quantizer.log_scale,
        "log_mid": first.output_quantizer.log_scale,
        "log_out": second.output_quantizer.log_scale,
    }
    assert first.output_quantizer.qmax == 15
    assert second.output_quantizer.qmax == 127
    return q, variables, x, target


def run_oracle(variables, x, target, rho):
    """Parameters before and after two steps, and the smallest margin."""
    oracle = Oracle(
        {
            k: np.copy(keras.ops.convert_to_numpy(v))
            for k, v in variables.items()
        }
    )
    before = dict(oracle.p)
    margins.clear()
    for _ in range(2):
        oracle.step(x, target, rho)
    return before, oracle.p, min(margins)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.5])
def test_update_equals_the_oracle(rho):
    for seed in range(100):
        q, variables, x, target = build(seed)
        before, after, smallest = run_oracle(variables, x, target, rho)
        if smallest > 2e-4:
            break
    assert smallest > 2e-4
    assert {id(v) for v in variables.values()} == {
        id(v) for v in q.trainable_variables
    }
    model = keras_saq.SAQModel(q, rho=rho)
    model.compile(keras.optimizers.SGD(LEARNING_RATE), "mse", jit_compile=False)
    for _ in range(2):
        model.fit(x, target, batch_size=16, shuffle=False, verbose=0)
    for name, variable in variables.items():
        np.testing.assert_allclose(
            variable.numpy(), after[name], atol=1e-5, err_msg=name
        )
    moved = [np.abs(after[name] - before[name]).max() for name in after]
    assert min(moved) > 1e-6


def test_the_perturbation_has_length_rho_and_raises_the_loss():
    from keras_saq.sharpness.ascent import perturbation

    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=s).astype("float32") for s in ((3, 4), (5,))]
    eps = perturbation([*gradients, None], 0.3)
    assert eps[2] is None
    eps = [keras.ops.convert_to_numpy(e) for e in eps[:2]]
    flat = np.concatenate([np.ravel(e) for e in eps[:2]])
    np.testing.assert_allclose(np.linalg.norm(flat), 0.3, rtol=1e-6)
    cosine = sum(np.sum(e * g) for e, g in zip(eps, gradients))
    np.testing.assert_allclose(
        cosine,
        0.3 * np.sqrt(sum(np.square(g).sum() for g in gradients)),
        rtol=1e-5,
    )
    zero = perturbation([np.zeros(3, "float32")], 0.3)
    np.testing.assert_array_equal(zero[0], np.zeros(3))
