"""The three ways to combine a quantization and a perturbation of weights.

Source: SAQ (arXiv 2111.12273). With the quantizer Q, a loss L, and
eps(v) = rho * g / ||g||_2 for the gradient g at v:

    case 1   min L(Q(w) + eps(w))      eps does not know of Q
    case 2   min L(Q(w + eps(w)))      perturbed first, quantized after
    case 3   min L(Q(w) + eps(Q(w)))   quantized first, perturbed after

Case 3 is the paper's choice. In case 1 the gradient passes through the
quantizer to the float weights, so weights that it clips are not perturbed
("perturbation mismatch"); in case 2 rounding swallows most of a perturbation
that is small against a step ("perturbation diminishment"). Cases 1 and 2 are in
the authors' code for Transformers (liujingcs/Q-ViT-DeiT, `qlsamv2_wn.py` and
`lsam_wn.py`), on standardized weights; here they are as the formulas say.
Perturbed variables that are not quantized (biases, gamma, beta, scales) are the
same in all three.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
    """One of the cases.

    Attributes:
        number: 1, 2 or 3.
        from_quantized: whether the gradient is taken at Q(w), not at w.
        after_quantization: whether eps is added to Q(w), not to w.
    """

    number: int
    from_quantized: bool
    after_quantization: bool


CASES = {
    1: Case(1, from_quantized=False, after_quantization=True),
    2: Case(2, from_quantized=False, after_quantization=False),
    3: Case(3, from_quantized=True, after_quantization=True),
}


def get(number):
    """The `Case` of a number."""
    if isinstance(number, bool) or number not in CASES:
        raise ValueError(
            "`case` must be 1, 2 or 3. See `keras_saq.sharpness.cases`. "
            f"Received: case={number!r}"
        )
    return CASES[number]
