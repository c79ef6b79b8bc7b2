"""`search_policy`: bits of every layer, chosen on a small proxy data set."""

import time

import keras
import numpy as np

from keras_saq.search import gate as gates
from keras_saq.search import head
from keras_saq.search import methods
from keras_saq.search import result
from keras_saq.search import solver
from keras_saq.search import trainer as trainers
from keras_saq.search import training
from keras_saq.search.budget import Budget
from keras_saq.search.proxy import as_proxy
from keras_saq.search.space import SearchSpace

METHODS = ("seam", "ce", "sensitivity", "scale", "mpiq", "random", "uniform")
# What others have to be better than.
BASELINES = ("random", "uniform")
# From which batch norms take the statistics of certain bits.
_STATISTICS_BATCHES = 16
_SENSITIVITIES = ("loss", "output")
_DEFAULT_BITS = {"litert": (2, 3, 4, 6, 8), "paper": (2, 3, 4, 5, 6)}


class PolicySearch:
    """A search, step by step: `search_policy` in one object.

    `fit` does what takes time, once. `policy` then answers for any budget,
    and `front` for several, from the same supernet.

    Args:
        model: a built float Keras model, trained; it is not changed.
        proxy: what to search on: a `keras_saq.data.ProxySplit`, arrays
            `(x, y)`, or a `tf.data.Dataset` of batches `(x, y)`, which is
            read into memory.
        method: `"seam"`, `"ce"` (the same without the margin), `"scale"`,
            `"sensitivity"`, `"mpiq"`, `"random"` or `"uniform"`.
        candidates: numbers of bits, or `Candidates` and `Rule`s; `None`: 2,
            3, 4, 6, 8 for `"litert"` and 2 to 6 for `"paper"`.
        target: see `SearchSpace`.
        ties: see `SearchSpace`.
        first_last_bits: see `SearchSpace`.
        loss: a Keras loss; `None`: cross entropy of integer labels.
        proxy_model: the model to search on, where a temporary head cannot be
            made: layers with the same paths, outputs for the proxy's classes.
        new_head: whether the proxy has other classes than the model; `None`:
            if their numbers differ.
        adapt_epochs: epochs of float training on the proxy after the model
            has got a new head.
        epochs: epochs of the search.
        batch_size: of the search.
        learning_rate: of Adam, for weights and scales; it falls to a tenth
            (cosine).
        logit_learning_rate: of the logits, see `keras_saq.search.optimizer`;
            `None`: so much that a logit can move by about 5 in the search, at
            most 0.1.
        margin_weight: factor of the margin term (`"seam"`).
        cost_weight: factor of the cost over the budget.
        temperature: of the softmax, at the beginning and at the end.
        rho: radius of SAQ's perturbation in the search; 0 for none.
        augment: `function(batch of inputs, numpy.random.Generator)`.
        min_use: share of the budget's first cost that a policy must use,
            where one does, so that policies are compared at equal cost; not
            for `"uniform"`. 0 for none.
        sensitivity: `"loss"` or `"output"`, for that method.
        num_samples: samples that `"sensitivity"` and `"mpiq"` look at.
        gate: share of the proxy that is kept apart to compare what was found
            with equal bits, see `keras_saq.search.gate`: a policy that is not
            measurably better is not returned. 0 for no comparison; there is
            none of `"random"` and `"uniform"`, which are baselines.
        seed: of everything that is random; set for Keras too.
        checkpoint: folder for the state after each epoch; if it is there
            already, the search goes on from it.
        log_dir: folder for TensorBoard: bit probabilities and losses.
        verbose: 0 for silence, 1 for a progress bar, 2 for a line an epoch.

    Attributes:
        space: the `SearchSpace` of `model`.
        supernet: the `Supernet`, once there is one.
        scores: list of arrays, after `fit`.
        seconds: what `fit` took.
        history: dict of lists: losses and metrics by epoch.
        probabilities: list by epoch of the probabilities of each group.

    Raises:
        ValueError: if an argument is none of what it can be, or if the model
            has nothing to search.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((8,))] + [keras.layers.Dense(8, name=n) for n in "abc"]
    ... )
    >>> proxy = np.eye(8, dtype="float32"), np.arange(8)
    >>> search = keras_saq.PolicySearch(
    ...     model, proxy, "uniform", candidates=(2, 4), target="paper")
    >>> search = search.fit(keras_saq.Budget(bops="w4a4"))
    >>> search.policy().provenance["bits"]["b weights"]
    4
    """

    def __init__(
        self,
        model,
        proxy,
        method="seam",
        candidates=None,
        target="litert",
        ties=(),
        first_last_bits=8,
        loss=None,
        proxy_model=None,
        new_head=None,
        adapt_epochs=3,
        epochs=15,
        batch_size=64,
        learning_rate=1e-3,
        logit_learning_rate=None,
        margin_weight=1.0,
        cost_weight=1.0,
        temperature=(1.0, 0.5),
        rho=0.0,
        augment=None,
        min_use=0.95,
        sensitivity="loss",
        num_samples=512,
        gate=0.2,
        seed=0,
        checkpoint=None,
        log_dir=None,
        verbose=1,
    ):
        _check_choice("method", method, METHODS)
        _check_choice("sensitivity", sensitivity, _SENSITIVITIES)
        if candidates is None:
            candidates = _DEFAULT_BITS.get(target, (8,))
        self.model = model
        if isinstance(gate, bool) or not 0 <= gate < 1:
            raise ValueError(
                "`gate`, the share of the proxy that is kept apart, must be "
                f"at least 0 and below 1. Received: gate={gate!r}"
            )
        self.proxy, self.held_out = as_proxy(proxy), None
        if gate and method not in BASELINES:
            self.proxy, self.held_out = gates.hold_out(self.proxy, gate, seed)
        self._judged = {}
        self.method, self.sensitivity = method, sensitivity
        self.space = SearchSpace(
            model, candidates, target, ties, first_last_bits
        )
        self._proxy_model, self._new_head = proxy_model, new_head
        self.loss, self.rho = loss, float(rho)
        self.adapt_epochs, self.epochs = adapt_epochs, epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.logit_learning_rate = logit_learning_rate
        self.margin_weight, self.cost_weight = margin_weight, cost_weight
        self.temperature = temperature
        self.augment, self.num_samples = augment, num_samples
        self.min_use = min_use
        self.seed, self.verbose = seed, verbose
        self.checkpoint, self.log_dir = checkpoint, log_dir
        self.supernet = self.scores = self.budget = None
        self.limits = []
        self.seconds = 0.0
        self.history, self.probabilities = {}, []

    def fit(self, budget):
        """Does the method's work; `"seam"` and `"ce"` are pulled to a budget.

        Args:
            budget: a `Budget`.

        Returns:
            The search itself.

        Raises:
            InfeasibleBudget: if no policy meets the budget.
        """
        self.budget = _check_budget(budget)
        self.limits = budget.resolve(self.space)
        groups = self.space.groups
        zeros = [np.zeros(len(g.bits)) for g in groups]
        solver.solve(groups, zeros, self.limits)  # raises if it is impossible
        start = time.perf_counter()
        keras.utils.set_random_seed(self.seed)
        if self.method in ("seam", "ce"):
            self.scores = methods.softmax(self)
        elif self.method == "uniform":
            self.scores = zeros
        else:
            self.scores = getattr(methods, self.method)(self)
        self.seconds = time.perf_counter() - start
        return self

    def assignment(self, budget=None):
        """Index of a candidate for each group, within a budget.

        Args:
            budget: a `Budget`; `None`: that of `fit`.
        """
        self._require_fit()
        budget = self.budget if budget is None else _check_budget(budget)
        limits = budget.resolve(self.space)
        if self.method == "uniform":
            return methods.uniform_assignment(self.space.groups, limits)
        return self._judged_within(limits)[0]

    def verdict(self, budget=None):
        """What the gate measured: a `Verdict`, or `None` without one.

        Args:
            budget: a `Budget`; `None`: that of `fit`.
        """
        self._require_fit()
        if self.held_out is None:
            return None
        budget = self.budget if budget is None else _check_budget(budget)
        return self._judged_within(budget.resolve(self.space))[1]

    def _judged_within(self, limits):
        """An assignment that is not worse than equal bits, and a `Verdict`."""
        found = solver.solve(
            self.space.groups, self.scores, limits, self.min_use
        )
        if self.held_out is None:
            return found, None
        key = tuple(found), tuple(each.limit for each in limits)
        if key not in self._judged:
            self._judged[key] = gates.judge(self, found, limits)
        return self._judged[key]

    def policy(self, budget=None):
        """The `QuantizePolicy` for a budget, with its provenance.

        Args:
            budget: a `Budget`; `None`: that of `fit`.
        """
        chosen = self.assignment(budget)
        provenance = result.provenance(self, budget or self.budget, chosen)
        policy = self.space.policy(chosen, provenance)
        result.verify(self.space, chosen, policy)
        return policy

    def front(self, budgets, data=None, epochs=3, batch_size=256):
        """Accuracy against cost over several budgets, from one supernet.

        The weights and scales that `fit` trained stay as they are. With
        `"seam"` and `"ce"`, for each budget the logits alone are trained anew
        for some epochs; other methods have the same scores for all budgets.

        Args:
            budgets: list of `Budget`s of the same costs.
            data: `(x, y)` to measure the accuracy on, in the classes of the
                proxy; `None`: the proxy itself.
            epochs: of the logits, for each budget.
            batch_size: of the measurement.

        Returns:
            List of `keras_saq.search.FrontPoint`, in the order of `budgets`.
            The accuracy is that of the supernet with certain bits and their
            own batch statistics, without fine-tuning: good for comparing, not
            for reporting.
        """
        self._require_fit()
        x, y = (self.proxy.x, self.proxy.y) if data is None else data
        supernet = self.prepare_supernet()
        supernet.model.compile(loss=self.loss, metrics=["accuracy"])
        before = self.scores, self.seconds
        points = []
        for budget in budgets:
            if self.method in ("seam", "ce"):
                limits = _check_budget(budget).resolve(self.space)
                start = time.perf_counter()
                training.train_logits(self, supernet, limits, epochs)
                self.scores = methods.log_probabilities(supernet)
                self.seconds = before[1] + time.perf_counter() - start
            policy, chosen = self.policy(budget), self.assignment(budget)
            self.scores, self.seconds = before
            with (
                supernet.decided(chosen) as model,
                supernet.own_statistics(self._statistics_batches()),
            ):
                logs = model.evaluate(
                    x, y, batch_size=batch_size, verbose=0, return_dict=True
                )
            cost = policy.provenance["cost"]
            points.append(result.FrontPoint(policy, cost, logs["accuracy"]))
        return points

    def _statistics_batches(self):
        batches = self.batches()
        count = min(batches.num_batches, _STATISTICS_BATCHES)
        return [batches[i][0] for i in range(count)]

    def _require_fit(self):
        if self.scores is None:
            raise ValueError(
                "The search has not been made yet. Call `search.fit(budget)` "
                "first."
            )

    # --- What methods ask for

    def prepare_supernet(self):
        """The supernet on the proxy's model, calibrated; made once."""
        if self.supernet is None:
            self.supernet = training.make_supernet(self)
        return self.supernet

    def train_supernet(self, with_margin, sample=False):
        """Trains weights, scales and, unless `sample`, the logits."""
        training.train(self, self.prepare_supernet(), with_margin, sample)

    def proxy_model(self):
        """The float model on the proxy, with a new head where it needs one."""
        if self._proxy_model is not None:
            return self._proxy_model
        if not self.has_other_classes:
            return self.model
        return head.with_classes(self.model, self.proxy.num_classes)

    @property
    def has_other_classes(self):
        """Whether the proxy's labels are not those of the model's outputs."""
        if self._proxy_model is not None:
            return True
        if self._new_head is not None:
            return self._new_head
        return self.proxy.other_classes(head.num_outputs(self.model))

    def batches(self, epoch=0):
        """Shuffled batches of the proxy, from an epoch on."""
        return trainers.Batches(
            self.proxy.x,
            self.proxy.y,
            self.batch_size,
            self.seed,
            epoch,
            self.augment,
        )

    def settings(self):
        """Plain data that says which search it is, for checkpoints."""
        return {
            "method": self.method,
            "groups": [(g.name, list(g.bits)) for g in self.space.groups],
            "limits": [(e.cost.name, e.limit) for e in self.limits],
            "proxy": self.proxy.describe(),
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rates": [self.learning_rate, self.logit_learning_rate],
            "weights": [self.margin_weight, self.cost_weight],
            "temperature": list(self.temperature),
            "rho": self.rho,
            "seed": self.seed,
        }


def search_policy(model, proxy, budget, method="seam", **kwargs):
    """Chooses the bits of every layer on a small proxy data set.

    Trains, on the proxy, a supernet that holds all candidate bits at once
    (one convolution per layer), with cross entropy, a large-margin term and a
    soft budget; then an integer program takes the most probable policy that
    meets the budget exactly. `method` names baselines of the same call.
    `"seam"` is a reconstruction of SEAM (arXiv 2302.06845), see
    docs/choosing_bits.md.

    Args:
        model: a built float Keras model, trained; it is not changed.
        proxy: a `keras_saq.data.ProxySplit`, arrays `(x, y)`, or a
            `tf.data.Dataset` of batches.
        budget: a `keras_saq.Budget`.
        method: see `keras_saq.search.PolicySearch`.
        **kwargs: see `keras_saq.search.PolicySearch`.

    Returns:
        A `keras_saq.QuantizePolicy` for `keras_saq.quantize_model`. Its
        `provenance` says how it was found, and is saved in its JSON.

    Raises:
        ValueError: if the budget is out of reach (`InfeasibleBudget`, with
            the reachable range), or an argument is wrong.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> model = keras.Sequential(
    ...     [keras.Input((8,))] + [keras.layers.Dense(8) for _ in range(3)])
    >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    >>> policy = keras_saq.search_policy(
    ...     model, (x, np.arange(32) % 8), keras_saq.Budget(bops="w4a4"),
    ...     method="sensitivity", verbose=0)
    >>> policy.provenance["cost"]["bops"] <= 64 * (64 + 16 + 64)
    True
    >>> q = keras_saq.quantize_model(model, policy)
    """
    search = PolicySearch(model, proxy, method, **kwargs)
    return search.fit(budget).policy()


def _check_budget(budget):
    if not isinstance(budget, Budget):
        raise ValueError(
            "`budget` must be a `keras_saq.Budget`, such as "
            "`keras_saq.Budget(bops='w3a3')`. "
            f"Received: {budget!r} of type {type(budget).__name__}"
        )
    return budget


def _check_choice(name, value, known):
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {list(known)}. Received: {name}={value!r}"
        )
