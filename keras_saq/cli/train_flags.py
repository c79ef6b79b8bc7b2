"""The flags of `keras-saq train`."""

import argparse

from keras_saq.cli import arguments
from keras_saq.cli import data_flags
from keras_saq.cli import files
from keras_saq.cli import losses
from keras_saq.cli import policies
from keras_saq.cli import precision
from keras_saq.cli import training

# What only sharpness-aware training reads.
SAQ_DEFAULTS = {
    "rho": 0.05,
    "strategy": "full",
    "case": 3,
    "adaptive": "none",
    "batch_norm": "first",
}


def add_arguments(parser):
    """Adds all of them, in groups."""
    # There are too many for a line.
    parser.usage = (
        "keras-saq train MODEL.keras --data=DATA --output=RUN [flags]"
    )
    files.add_model_arguments(parser, "float or quantized")
    parser.add_argument(
        "--output",
        required=True,
        metavar="RUN",
        help="folder of the run; the same command goes on there",
    )
    _add_data(parser.add_argument_group("data"))
    _add_bits(parser.add_argument_group("bits, for a float model"))
    _add_method(parser.add_argument_group("train step"))
    _add_optimizer(parser.add_argument_group("optimizer"))
    _add_end(parser.add_argument_group("extras"))


def _add_data(group):
    group.add_argument(
        "--data", required=True, metavar="DATA", help=data_flags.DATA_HELP
    )
    group.add_argument("--train-split", metavar="SPLIT", help="default: train")
    group.add_argument(
        "--test-split",
        metavar="SPLIT",
        help="default: test, else validation; 'none' for no test",
    )
    group.add_argument(
        "--validation-split",
        type=arguments.share,
        default=0.1,
        metavar="PART",
        help="part of each class of the training data that is held out, to "
        "measure each epoch and to choose best.keras (default: %(default)s)",
    )
    data_flags.add_preprocessing(group)
    group.add_argument(
        "--augment",
        choices=("none", "flip", "shift", "shift_flip"),
        default="none",
        help="of training images: mirrored left to right, moved by up to an "
        "eighth of the height, or both (default: %(default)s)",
    )


def _add_bits(group):
    policies.add_arguments(group)
    group.add_argument(
        "--calibration-samples",
        type=arguments.positive_integer,
        default=512,
        metavar="N",
        help="training samples from which the first scales are taken "
        "(default and most: 512)",
    )


def _add_method(group):
    from keras_saq.sharpness.ascent import ADAPTIVE
    from keras_saq.sharpness.model import BATCH_NORM
    from keras_saq.sharpness.strategies import STRATEGIES

    group.add_argument(
        "--method",
        choices=("saq", "qat", "float"),
        default="saq",
        help="sharpness-aware or plain quantization-aware training, or "
        "training in float (default: %(default)s)",
    )
    group.add_argument(
        "--rho",
        type=arguments.non_negative,
        default=SAQ_DEFAULTS["rho"],
        help="saq: radius of the perturbation (default: %(default)s)",
    )
    group.add_argument(
        "--strategy",
        choices=sorted(STRATEGIES.keys() - {"none"}),  # that is qat
        default=SAQ_DEFAULTS["strategy"],
        help="saq: how much of the second pass (default: %(default)s)",
    )
    group.add_argument(
        "--case",
        type=arguments.positive_integer,
        choices=(1, 2, 3),
        default=SAQ_DEFAULTS["case"],
        help="saq: of the paper (default: %(default)s)",
    )
    group.add_argument(
        "--adaptive",
        choices=("none", *(a for a in ADAPTIVE if a)),
        default=SAQ_DEFAULTS["adaptive"],
        help="saq: scaling of the perturbation (default: %(default)s)",
    )
    group.add_argument(
        "--batch-norm",
        choices=BATCH_NORM,
        default=SAQ_DEFAULTS["batch_norm"],
        help="saq: whose statistics count (default: %(default)s)",
    )
    group.add_argument(
        "--loss",
        choices=losses.LOSSES,
        default="auto",
        help="cross entropy of classes or mean squared error (default: by "
        "the labels)",
    )
    group.add_argument(
        "--teacher",
        metavar="MODEL",
        help="a float .keras model whose predictions are learned too",
    )
    group.add_argument(
        "--distillation-weight",
        type=arguments.weight,
        default=0.5,
        metavar="PART",
        help="part of the teacher in the loss (default: %(default)s)",
    )
    group.add_argument(
        "--temperature",
        type=arguments.positive,
        default=4.0,
        help="of the teacher's softmax (default: %(default)s)",
    )


def _add_optimizer(group):
    rates = ", ".join(f"{k} {v:g}" for k, v in training_rates().items())
    group.add_argument(
        "--optimizer",
        choices=sorted(training_rates()),
        default="sgd",
        help="default: %(default)s",
    )
    group.add_argument(
        "--learning-rate",
        type=arguments.positive,
        metavar="RATE",
        help=f"at its highest (default: {rates})",
    )
    group.add_argument(
        "--schedule",
        choices=("cosine", "constant"),
        default="cosine",
        help="of the learning rate (default: %(default)s)",
    )
    group.add_argument(
        "--warmup-epochs",
        type=arguments.non_negative,
        default=0.0,
        metavar="N",
        help="epochs in which the learning rate rises from 0 (default: 0)",
    )
    group.add_argument(
        "--momentum",
        type=arguments.share,
        default=0.9,
        help="of sgd, Nesterov's (default: %(default)s)",
    )
    group.add_argument(
        "--weight-decay",
        type=arguments.non_negative,
        help="decoupled, in units of the learning rate; scales have none "
        "(default: 0; adamw 0.004)",
    )
    group.add_argument(
        "--scale-learning-rate",
        type=arguments.non_negative,
        default=1.0,
        metavar="FACTOR",
        help="learning rate of scales, in units of the others' (default: 1)",
    )
    for name, default in (("epochs", 10), ("batch-size", 128)):
        group.add_argument(
            f"--{name}",
            type=arguments.positive_integer,
            default=default,
            help="default: %(default)s",
        )
    group.add_argument(
        "--seed",
        type=arguments.natural_number,
        default=0,
        help="of order, augmentation and dropout (default: 0)",
    )
    group.add_argument(
        "--mixed-precision",
        choices=precision.NAMES,
        default="float32",
        help="what layers compute in; weights and outputs stay float32 "
        "(default: %(default)s)",
    )


def _add_end(group):
    group.add_argument(
        "--freeze-scales",
        type=arguments.natural_number,
        metavar="EPOCH",
        help="hold the scales from this epoch on, counted from 0",
    )
    group.add_argument(
        "--reestimate-batch-norm",
        action="store_true",
        help=argparse.SUPPRESS,  # what is done anyway
    )
    group.add_argument(
        "--moving-statistics",
        action="store_true",
        help="keep the moving statistics of batch norms, which lag behind the "
        "weights (default: they are measured again at the end)",
    )
    group.add_argument(
        "--sharpness-samples",
        type=arguments.natural_number,
        default=0,
        metavar="N",
        help="measure the sharpness on so many training samples after each "
        "epoch (default: not)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write curves to RUN/tensorboard",
    )
    group.add_argument(
        "--export",
        metavar="FILE.tflite",
        help="write the integer file at the end and verify it",
    )
    group.add_argument(
        "--verify-samples",
        type=arguments.positive_integer,
        default=256,
        metavar="N",
        help="samples on which it is verified (default: %(default)s)",
    )
    group.add_argument(
        "--limit-steps",
        type=arguments.positive_integer,
        metavar="N",
        help="train on at most so many batches per epoch, for a try",
    )
    group.add_argument(
        "--limit-test",
        type=arguments.positive_integer,
        metavar="N",
        help="test on at most so many samples",
    )
    arguments.add_json(group)


def training_rates():
    """Dict from an optimizer's name to its default learning rate."""
    return training.OPTIMIZERS
