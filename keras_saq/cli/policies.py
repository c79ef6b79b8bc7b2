"""The flags that say which bits, and the policy that they make."""

import dataclasses

from keras_saq.cli import arguments


def add_arguments(parser):
    """The flags of commands that quantize a model."""
    from keras_saq.policy.policy import SCHEMES
    from keras_saq.quantizers import known_names

    parser.add_argument(
        "--policy",
        help="a preset such as w4a8 (4-bit weights, 8-bit activations) or "
        "w4 (weights only), or a policy's .json (default: w4a8)",
    )
    parser.add_argument(
        "--scheme",
        choices=SCHEMES,
        help="where activations are quantized: everywhere an integer file "
        "needs it, or only the inputs of weighted layers, as in papers "
        "(default: litert)",
    )
    for kind in ("weight", "activation"):
        parser.add_argument(
            f"--{kind}-quantizer",
            metavar="NAME",
            help=f"quantizer of {kind}s: {', '.join(known_names())} "
            "(default: lsq)",
        )
    parser.add_argument(
        "--first-last-bits",
        type=_bits_or_none,
        metavar="BITS",
        help="bits of the first and the last layer, or 'none': as the others "
        "(default: 8)",
    )
    parser.add_argument(
        "--stream-bits",
        type=arguments.positive_integer,
        metavar="BITS",
        help="bits of sums and other tensors that no weighted layer reads "
        "(default: 8)",
    )


def _bits_or_none(text):
    return text if text == "none" else arguments.positive_integer(text)


def was_given(args):
    """The first flag that was given, or `None`."""
    for name in ("policy", *_FIELDS):
        if getattr(args, name) is not None:
            return "--" + name.replace("_", "-")
    return None


_FIELDS = (
    "scheme",
    "weight_quantizer",
    "activation_quantizer",
    "first_last_bits",
    "stream_bits",
)


def make(args):
    """The `QuantizePolicy` that the flags say."""
    from keras_saq import policy as policies

    policy = policies.get(args.policy or "w4a8")
    fields = {name: getattr(args, name) for name in _FIELDS}
    fields = {k: v for k, v in fields.items() if v is not None}
    if fields.get("first_last_bits") == "none":
        fields["first_last_bits"] = None
    return dataclasses.replace(policy, **fields) if fields else policy
