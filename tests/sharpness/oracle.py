"""SAQ's training steps in NumPy, written from the equations.

Two dense layers, y = relu(x Q(w1) + b1) Q(w2) + b2, mean squared error,
SGD with momentum. Scales are constant. Everything in float64.
"""

import keras
import numpy as np

import keras_saq
from keras_saq.layers import quantize_layer
from keras_saq.policy import QuantizeConfig
from keras_saq.quantizers import LSQ

LEARNING_RATE = 0.1
MOMENTUM = 0.9
ETA = 0.01
WEIGHTS = ("w1", "w2")


def build(seed, quantized=True, **kwargs):
    """A `SAQModel`, its variables by the oracle's names, and data."""
    rng = np.random.default_rng(seed)
    first = keras.layers.Dense(5, activation="relu")
    second = keras.layers.Dense(3)
    if quantized:
        first, second = (
            quantize_layer(
                layer,
                QuantizeConfig(
                    {"kernel": LSQ(4, narrow_range=True, channel_axes=(-1,))}
                ),
            )
            for layer in (first, second)
        )
    inputs = keras.Input((6,))
    model = keras.Model(inputs, second(first(inputs)))
    variables = {
        "w1": first.kernel,
        "b1": first.bias,
        "w2": second.kernel,
        "b2": second.bias,
    }
    for name, variable in variables.items():
        value = 0.5 * rng.normal(size=variable.shape)
        variable.assign(value)
    if quantized:
        for layer in (first, second):
            layer.initialize_weight_scales()
            # Not where the largest weight is exactly the last code.
            (log_scale,) = layer.kernel_quantizer.trainable_variables
            log_scale.assign(log_scale - 0.0517)
            layer.kernel_quantizer.trainable = False
    x = rng.normal(size=(8, 6)).astype("float32")
    target = rng.normal(size=(8, 3)).astype("float32")
    return keras_saq.SAQModel(model, **kwargs), variables, x, target


class Oracle:
    """The parameters, and how a step changes them."""

    def __init__(
        self, model, variables, rho, case=3, adaptive=False, moved=None
    ):
        self.p = {
            k: keras.ops.convert_to_numpy(v).astype("float64")
            for k, v in variables.items()
        }
        self.scales = {}
        for layer in model.model.layers:
            if hasattr(layer, "kernel_quantizer"):
                scale = keras.ops.convert_to_numpy(layer.kernel_quantizer.scale)
                name = "w1" if layer.kernel is variables["w1"] else "w2"
                self.scales[name] = scale.astype("float64")
        self.rho, self.case, self.adaptive = rho, case, adaptive
        self.moved = moved or tuple(self.p)
        self.velocity = {k: np.zeros_like(v) for k, v in self.p.items()}
        self.t = 0
        self.g_v = None
        self.similar = 0.0
        self.margin = np.inf

    def quantize(self, name, w):
        if name not in self.scales:
            return w, np.ones_like(w)
        v = w / self.scales[name]
        ties = np.abs(v - np.floor(v) - 0.5).min()
        self.margin = min(self.margin, ties, np.abs(np.abs(v) - 7).min())
        return self.scales[name] * np.rint(np.clip(v, -7, 7)), np.abs(v) <= 7

    def gradients(self, p, eps, x, target, extra=0.0):
        """Losses of the samples, gradients at p, gradients at Q(p).

        `extra` is added to the gradient of the outputs.
        """
        q1, inside1 = self.quantize("w1", p["w1"])
        q2, inside2 = self.quantize("w2", p["w2"])
        q1, q2 = q1 + eps.get("w1", 0), q2 + eps.get("w2", 0)
        z = x @ q1 + p["b1"]
        self.margin = min(self.margin, np.abs(z).min())
        h = np.maximum(z, 0)
        error = h @ q2 + p["b2"] - target
        dy = 2 * error / error.size + extra
        dz = (dy @ q2.T) * (z > 0)
        at_q = {"w1": x.T @ dz, "w2": h.T @ dy}
        at_p = {
            "w1": at_q["w1"] * inside1,
            "b1": dz.sum(0),
            "w2": at_q["w2"] * inside2,
            "b2": dy.sum(0),
        }
        return (error**2).mean(1), at_p, at_q

    def scaled(self, g, values):
        """rho S g / ||T g||."""
        one = {k: np.ones_like(v) for k, v in g.items()}
        t, s = dict(one), dict(one)
        for name in WEIGHTS:
            if name in g and self.adaptive == "layer":
                t[name] = np.std(self.p[name]) * one[name]
                s[name] = np.var(self.p[name]) * one[name]
            elif name in g and self.adaptive:
                t[name] = np.abs(values[name]) + ETA
                asam = self.adaptive == "asam"
                s[name] = t[name] ** 2 if asam else values[name] ** 2
        norm = np.sqrt(sum(((t[k] * g[k]) ** 2).sum() for k in g))
        rho = self.rho(self.t) if callable(self.rho) else self.rho
        return {k: rho * s[k] * g[k] / (norm + 1e-12) for k in g}

    def perturbation(self, at_p, at_q, mask=None):
        g = {k: at_p[k] for k in self.moved}
        values = dict(self.p)
        if self.case == 3 and self.scales:
            for name in WEIGHTS:
                if name in g:
                    g[name] = at_q[name]
                    values[name] = self.quantize(name, self.p[name])[0]
        if mask:
            g = {k: mask[k] * v for k, v in g.items()}
        return self.scaled(g, values)

    def perturbed(self, eps, x, target):
        p, after = dict(self.p), {}
        for name, e in eps.items():
            if name in self.scales and self.case != 2:
                after[name] = e
            else:
                p[name] = p[name] + e
        return self.gradients(p, after, x, target)

    def update(self, g):
        for k in self.p:
            self.velocity[k] = (
                MOMENTUM * self.velocity[k] - LEARNING_RATE * g[k]
            )
            self.p[k] = self.p[k] + self.velocity[k]
        self.t += 1

    # The strategies.

    def full(self, x, target, mix=0.0):
        _, at_p, at_q = self.gradients(self.p, {}, x, target)
        sharp = self.perturbed(self.perturbation(at_p, at_q), x, target)[1]
        self.update({k: (1 - mix) * sharp[k] + mix * at_p[k] for k in sharp})

    def late(self, x, target, first, mix):
        if self.t >= first:
            self.full(x, target, mix)
        else:
            self.update(self.gradients(self.p, {}, x, target)[1])

    def mesa(self, x, target, first, weight, temperature, decay):
        """The trajectory loss is added to the mean squared error."""
        self.averages = getattr(self, "averages", None) or {
            k: np.zeros_like(v) for k, v in self.p.items()
        }
        for k, v in self.p.items():
            self.averages[k] = decay * self.averages[k] + (1 - decay) * v
        whole = 1 - decay ** (self.t + 1)
        past = {k: v / whole for k, v in self.averages.items()}
        if self.t < first:
            self.update(self.gradients(self.p, {}, x, target)[1])
            return
        z, z_v = self.outputs(self.p, x), self.outputs(past, x)
        # d/dz of T^2 KL(softmax(z_v/T) || softmax(z/T)), mean over samples.
        extra = temperature * (
            _softmax(z / temperature) - _softmax(z_v / temperature)
        )
        self.update(
            self.gradients(
                self.p, {}, x, target, extra=weight * extra / len(x)
            )[1]
        )

    def outputs(self, p, x):
        q1, q2 = (self.quantize(k, p[k])[0] for k in WEIGHTS)
        z = x @ q1 + p["b1"]
        self.margin = min(self.margin, np.abs(z).min())
        return np.maximum(z, 0) @ q2 + p["b2"]

    def periodic(self, x, target, k):
        _, at_p, at_q = self.gradients(self.p, {}, x, target)
        if self.t % k == 0:
            eps = self.perturbation(at_p, at_q)
            at_p = self.perturbed(eps, x, target)[1]
        self.update(at_p)

    def looksam(self, x, target, k, alpha, adapt=True):
        _, g, at_q = self.gradients(self.p, {}, x, target)
        norm = _norm(g)
        if self.t % k == 0:
            g_s = self.perturbed(self.perturbation(g, at_q), x, target)[1]
            cosine = _dot(g, g_s) / (norm * _norm(g_s))
            old = self.g_v
            self.g_v = {
                n: g_s[n] - _norm(g_s) * cosine * g[n] / norm for n in g
            }
            if old is not None:
                similar = _dot(old, self.g_v) / _norm(old) / _norm(self.g_v)
                self.similar = 0.9 * self.similar + 0.1 * similar
        else:
            factor = alpha * norm / _norm(self.g_v)
            if adapt:
                factor *= max(0.0, self.similar)
            g_s = {n: g[n] + factor * self.g_v[n] for n in g}
        self.update(g_s)

    def half_batch(self, x, target, count):
        _, at_p, at_q = self.gradients(self.p, {}, x[:count], target[:count])
        self.update(self.perturbed(self.perturbation(at_p, at_q), x, target)[1])

    def momentum(self, x, target):
        # The velocity descends, like minus an average gradient.
        if _norm(self.velocity):
            eps = self.scaled({k: self.velocity[k] for k in self.moved}, self.p)
        else:
            eps = {}
        self.update(self.perturbed(eps, x, target)[1])

    def esam(self, x, target, beta, count, masks):
        """`masks`: which of w1, w2, b1, b2 are perturbed, at each step."""
        losses, at_p, at_q = self.gradients(self.p, {}, x, target)
        mask = dict(zip(("w1", "w2", "b1", "b2"), masks[self.t]))
        eps = self.perturbation(at_p, at_q, mask)
        eps = {k: e / beta for k, e in eps.items()}
        rise = self.perturbed(eps, x, target)[0] - losses
        order = np.argsort(-rise)
        ordered = rise[order]
        self.margin = min(
            self.margin, 1e3 * (ordered[count - 1] - ordered[count])
        )
        chosen = order[:count]
        self.update(self.perturbed(eps, x[chosen], target[chosen])[1])


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _dot(a, b):
    return sum((a[k] * b[k]).sum() for k in a)


def _norm(a):
    return np.sqrt(_dot(a, a))


def compare(method, steps=4, arguments=(), oracle=None, **kwargs):
    """Trains a `SAQModel` and the oracle, from the first good seed.

    A good seed is one where nothing comes so close to a rounding tie that
    float32 could decide it otherwise.
    """
    oracle = oracle or {}
    quantized = oracle.pop("quantized", True)
    rho = kwargs.get("rho", 0.3)
    kwargs["rho"] = rho
    oracle_rho = oracle.pop("rho", rho)
    for seed in range(500):
        model, variables, x, target = build(seed, quantized, **kwargs)
        expected = Oracle(model, variables, oracle_rho, **oracle)
        before = dict(expected.p)
        for _ in range(steps):
            getattr(expected, method)(
                x.astype("float64"), target.astype("float64"), *arguments
            )
        if expected.margin > 1e-3:
            break
    else:
        raise RuntimeError("no seed keeps away from rounding ties")
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        "mse",
        jit_compile=keras.backend.backend() == "jax",
    )
    model.fit(x, target, batch_size=8, epochs=steps, shuffle=False, verbose=0)
    for name, variable in variables.items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable),
            expected.p[name],
            atol=2e-5,
            err_msg=name,
        )
        assert np.abs(expected.p[name] - before[name]).max() > 1e-4
