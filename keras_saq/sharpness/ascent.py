"""What SAQ perturbs, and by how much: the first half of its step.

Source: SAQ, Sharpness-aware Quantization (arXiv 2111.12273) and its released
code (ziplab/SAQ, `utils/qsam.py`). Case 3 of the paper minimises

    L(Q(w) + eps(Q(w))),   eps = rho * G / (||G||_2 + 1e-12)

where G holds, in one joint norm, the gradients with respect to the quantized
weights Q(w), and to what the released defaults perturb beside them: biases,
the gamma and beta of batch normalization, and the scales of activations (not
those of weights).
"""

from keras import ops

from keras_saq.models import quantized_layers

_NORM_EPSILON = 1e-12


class Participants:
    """The variables of a model that a perturbation moves.

    Attributes:
        quantized: latent variables of quantized weights; their perturbation
            is added after quantization.
        direct: trainable variables that are perturbed themselves. Of a model
            without quantized layers these are all of them, which is SAM
            (Foret et al., arXiv 2010.01412).
    """

    def __init__(self, model):
        self.quantized = []
        weight_scales = set()
        for layer in quantized_layers(model):
            for _, variable, quantizer in layer.quantized_weights():
                self.quantized.append(variable)
                weight_scales.update(map(id, quantizer.trainable_variables))
        excluded = weight_scales | {id(v) for v in self.quantized}
        self.direct = [
            v for v in model.trainable_variables if id(v) not in excluded
        ]
        # A frozen layer's weights are not perturbed.
        trainable = {id(v) for v in model.trainable_variables}
        self.quantized = [v for v in self.quantized if id(v) in trainable]


def perturbation(gradients, rho):
    """`rho * g / ||g||` with the norm over all of `gradients`.

    Args:
        gradients: list of tensors; `None` where there is no gradient.
        rho: radius of the perturbation.

    Returns:
        List of tensors of the same shapes, `None` where the gradient was.
    """
    squares = [
        ops.sum(ops.square(ops.cast(g, "float32")))
        for g in gradients
        if g is not None
    ]
    norm = ops.sqrt(sum(squares))
    factor = rho / (norm + _NORM_EPSILON)
    return [
        None if g is None else ops.cast(g, "float32") * factor
        for g in gradients
    ]
