"""Does the margin term see what cross entropy does not? Ranks of policies.

    python benchmarks/margin.py --checkpoint=pretrainedResnet.h5 --policies=16

Draws random policies at equal bit operations (w3a3) for the ResNet-8 of
`search.py`, quantizes with each, and measures on the 4 % proxy, before any
training: cross entropy, the margin term about the class centres of the
quantized features, and about those of the float features. Then each policy is
fine-tuned as in `search.py`. Printed are Spearman's rank correlations: a term
that helps a search ranks policies as their fine-tuned accuracy does, and not
just as cross entropy does already.
"""

import cifar
import keras
import numpy as np
import scipy.stats
import search
from absl import app
from absl import flags

import keras_saq
from keras_saq.search.margin import LargeMargin
from keras_saq.search.margin import class_rows
from keras_saq.search.margin import normalized_features
from keras_saq.table import format_table

FLAGS = flags.FLAGS
COLUMNS = ("cross entropy", "margin", "margin, float centres", "1 - top-1")


def features_and_outputs(model, x):
    """Penultimate features and probabilities, as arrays."""
    both = keras.Model(
        model.inputs, [model.layers[-2].output, model.outputs[0]]
    )
    return both.predict(x, batch_size=250, verbose=0)


def centres_of(features, rows):
    z = keras.ops.convert_to_numpy(normalized_features(features))
    return rows.T @ z


def margin_of(features, labels, centres):
    margin = LargeMargin(*centres.shape)
    margin.set_centres(centres)
    loss = margin(keras.ops.convert_to_tensor(features), labels, update=False)
    return float(loss)


def scores(policy, proxy, train, test, centres, seed):
    """Of one policy: a number per column, smaller is better."""
    q = keras_saq.quantize_model(
        search.float_model(), policy, calibration=train.x[:256]
    )
    features, outputs = features_and_outputs(q, proxy.x)
    labels = keras.ops.convert_to_tensor(proxy.y)
    rows = keras.ops.convert_to_numpy(class_rows(labels, proxy.num_classes))
    entropy = -np.log(np.maximum(outputs[np.arange(len(rows)), proxy.y], 1e-7))
    _, after, _, _ = search.fine_tuned(policy, train, test, seed)
    return (
        float(entropy.mean()),
        margin_of(features, labels, centres_of(features, rows)),
        margin_of(features, labels, centres),
        1 - after,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    test = search.images("cifar10", "test")
    proxy = search.part("cifar10", 0.04, 0)
    train = search.part("cifar10", FLAGS.fine_tune_fraction, 1000)
    model = cifar.resnet8(FLAGS.checkpoint)
    features, _ = features_and_outputs(model, proxy.x)
    labels = keras.ops.convert_to_tensor(proxy.y)
    rows = keras.ops.convert_to_numpy(class_rows(labels, proxy.num_classes))
    centres = centres_of(features, rows)
    found = []
    for seed in range(FLAGS.policies):
        policy = keras_saq.search_policy(
            search.float_model(),
            proxy,
            budget=keras_saq.Budget(bops=FLAGS.budget),
            method="random",
            target="paper",
            seed=seed,
            verbose=0,
        )
        found.append(scores(policy, proxy, train, test, centres, 0))
        print(seed, *(f"{value:.4f}" for value in found[-1]), flush=True)
        keras.backend.clear_session()
    ranks = scipy.stats.spearmanr(np.array(found)).statistic
    lines = [
        (name, *(f"{value:.2f}" for value in line))
        for name, line in zip(COLUMNS, ranks)
    ]
    print(f"{FLAGS.policies} policies; Spearman's rank correlation")
    print(format_table(("", *COLUMNS), lines, num_left=1))


if __name__ == "__main__":
    search.define_flags()
    flags.DEFINE_integer("policies", 16, "Random policies.", lower_bound=3)
    app.run(main)
