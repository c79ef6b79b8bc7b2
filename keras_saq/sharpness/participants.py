"""What takes part in a perturbation, and in the norm that it is scaled by.

SAQ's released code (ziplab/SAQ, `utils/qsam.py`) perturbs, with one joint
norm, the quantized weights Q(w), biases, the gamma and beta of batch
normalization, and the clipping values (here: scales) of activations; not those
of weights. That is `DEFAULT`. Each of the five kinds can be chosen.
"""

import dataclasses

from keras_saq.models import quantized_layers

WEIGHTS = "weights"
BIASES = "biases"
NORMALIZATION = "normalization"
WEIGHT_SCALES = "weight_scales"
ACTIVATION_SCALES = "activation_scales"

KINDS = (WEIGHTS, BIASES, NORMALIZATION, WEIGHT_SCALES, ACTIVATION_SCALES)
DEFAULT = (WEIGHTS, BIASES, NORMALIZATION, ACTIVATION_SCALES)


def check_kinds(kinds):
    """Returns `kinds` as a tuple in the order of `KINDS`, or raises."""
    if isinstance(kinds, str):
        kinds = (kinds,)
    kinds = tuple(kinds)
    unknown = [k for k in kinds if k not in KINDS]
    if unknown or not kinds:
        raise ValueError(
            f"`perturb` must name one or more of {list(KINDS)}. "
            f"Received: perturb={list(kinds)}"
        )
    return tuple(k for k in KINDS if k in kinds)


@dataclasses.dataclass(frozen=True, eq=False)
class Participant:
    """A trainable variable that a perturbation moves.

    Attributes:
        variable: the variable.
        kind: one of `KINDS`.
        is_quantized: whether it is the latent variable of a quantized weight;
            then case 3 perturbs its quantized value.
    """

    variable: object
    kind: str
    is_quantized: bool = False

    @property
    def is_offset(self):
        """Whether it is added: a bias, or the beta of a normalization.

        ASAM and QASAM do not scale these.
        """
        return self.kind == BIASES or (
            self.kind == NORMALIZATION and self.variable.name == "beta"
        )

    @property
    def is_logarithm(self):
        """Whether it is the logarithm of a scale."""
        return self.kind in (WEIGHT_SCALES, ACTIVATION_SCALES) and (
            self.variable.name.startswith("log")
        )


def participants(model, kinds=DEFAULT):
    """The participants of a model: quantized weights first.

    Args:
        model: a Keras model. One without quantized layers has the same kinds,
            except scales; that is SAM (Foret et al., arXiv 2010.01412).
        kinds: which of `KINDS` take part.

    Returns:
        List of `Participant`, in a fixed order. A frozen variable is none.
    """
    found = classify(model)
    chosen = [
        Participant(v, found[id(v)][0], found[id(v)][1])
        for v in model.trainable_variables
        if found[id(v)][0] in kinds
    ]
    return sorted(chosen, key=lambda p: not p.is_quantized)


def classify(model):
    """Dict from `id` of each trainable variable to `(kind, is_quantized)`."""
    found = {id(v): (WEIGHTS, False) for v in model.trainable_variables}
    for layer in model._flatten_layers():
        norm = any("Norm" in c.__name__ for c in type(layer).__mro__)
        for variable in layer._trainable_variables:
            if norm:
                found[id(variable)] = (NORMALIZATION, False)
            elif variable.name.endswith("bias"):
                found[id(variable)] = (BIASES, False)
    for layer in quantized_layers(model):
        for quantizer in layer.quantizers:
            for variable in quantizer.trainable_variables:
                found[id(variable)] = (ACTIVATION_SCALES, False)
    for layer in quantized_layers(model):
        for _, variable, quantizer in layer.quantized_weights():
            found[id(variable)] = (WEIGHTS, True)
            for scale in quantizer.trainable_variables:
                found[id(scale)] = (WEIGHT_SCALES, False)
    return found


def scale_variables(model):
    """The trainable scales of all quantizers of a model, each once."""
    scales = {}
    for layer in quantized_layers(model):
        for quantizer in layer.quantizers:
            scales.update((id(v), v) for v in quantizer.trainable_variables)
    return list(scales.values())
