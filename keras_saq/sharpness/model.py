"""`SAQModel`: a Keras model whose train step is SAQ's."""

import keras
from keras import ops

from keras_saq.models import Trainable
from keras_saq.models.fitting import arguments_of_fit
from keras_saq.models.fitting import updates_of_fit
from keras_saq.models.wrapper import Wrapper
from keras_saq.sharpness import ascent
from keras_saq.sharpness import cases
from keras_saq.sharpness import optimizers
from keras_saq.sharpness import participants
from keras_saq.sharpness import rho as rho_module
from keras_saq.sharpness import strategies
from keras_saq.sharpness.distillation import Distillation
from keras_saq.sharpness.guard import AscentGuard
from keras_saq.sharpness.guard import with_callback
from keras_saq.sharpness.training_state import TrainingState
from keras_saq.sharpness.training_state import training_attached

BATCH_NORM = ("first", "both", "neither")


@keras.saving.register_keras_serializable("keras_saq")
class SAQModel(Wrapper, Trainable, keras.Model):
    """Trains a quantized model for a flat loss (SAQ, arXiv 2111.12273).

    Each step computes the gradient at the quantized weights, moves by `rho`
    along it, to where the loss is higher, and updates the weights with the
    gradient found there (case 3 of the paper):

        min_w L(Q(w) + eps),   eps = rho * g / ||g||_2,   g = dL/dQ(w)

    The weights themselves are never perturbed: the perturbation lives in a
    scope of the step. Evaluation, prediction and export use the clean
    quantized weights. A model without quantized layers is trained with SAM
    (arXiv 2010.01412). The reported loss and metrics are those of the first
    pass; dropout masks are the same in both; what the second pass does to
    seeds, statistics, metrics and added losses is dropped.

    A step whose gradient has a NaN or an infinity updates nothing, neither
    weights nor statistics, and shows in the reported loss. Under a
    distribution strategy with several replicas the optimizer then sees a zero
    gradient instead.

    Args:
        model: the model to train, usually from `keras_saq.quantize_model`.
            It is wrapped, not copied: it holds the weights.
        rho: radius of the perturbation, in units of the weights; a number or
            a `keras.optimizers.schedules.LearningRateSchedule` over the
            optimizer's updates. 0 is plain quantization-aware training.
        case: 1, 2 or 3, see `keras_saq.sharpness.cases`.
        adaptive: `False`, `"layer"`, `"asam"` or `"qasam"`, see
            `keras_saq.sharpness.ascent`. With `"layer"`, `rho` is in units of
            each layer's standard deviation, as in the paper.
        perturb: what takes part in the perturbation and in its norm: some of
            `"weights"`, `"biases"`, `"normalization"`, `"weight_scales"` and
            `"activation_scales"`. The default is that of SAQ's released code,
            all but `"weight_scales"`.
        batch_norm: whose batch statistics go into the moving ones: those of
            the `"first"` pass, of `"both"` (as in SAQ's released code) or of
            `"neither"`.
        strategy: how often and on what the second pass is computed: a name,
            such as `"full"` or `"looksam"`, or an object of
            `keras_saq.sharpness.strategies`.
        sync_perturbation: whether the replicas of a distribution strategy
            share one perturbation. `None`: what the backend does by itself.
            On TensorFlow that is `False`, each replica has its own, as in the
            papers; on JAX `True`, always.
        scale_learning_rate: learning rate of the quantizers' scales, in units
            of the optimizer's: a number, or a pair for those of weights and
            those of activations.
        decay_scales: whether the optimizer's weight decay acts on scales.
        distillation: a `keras_saq.Distillation`, or `None`.

    Raises:
        ValueError: if `model` is no Keras model, or an argument is none of
            what it can be; in `fit`, if the model has no trainable weights,
            or if a layer would hide the perturbation from the second pass.

    Example:

    >>> import keras, keras_saq, numpy as np
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    >>> q = keras_saq.quantize_model(model, "w4a8")
    >>> saq = keras_saq.SAQModel(q, rho=0.05)
    >>> saq.compile("sgd", "mse")
    >>> history = saq.fit(np.ones((8, 16)), np.ones((8, 3)), verbose=0)
    """

    def __init__(
        self,
        model,
        rho=0.05,
        case=3,
        adaptive=False,
        perturb=participants.DEFAULT,
        batch_norm="first",
        strategy="full",
        sync_perturbation=None,
        scale_learning_rate=1.0,
        decay_scales=False,
        distillation=None,
        **kwargs,
    ):
        if not isinstance(model, keras.Model):
            raise ValueError(
                "`model` must be a `keras.Model`. "
                f"Received: {model!r} of type {type(model).__name__}"
            )
        _check_options(batch_norm, sync_perturbation)
        rho = rho_module.check_rho(rho)
        kwargs.setdefault("name", model.name)
        super().__init__(**kwargs)
        self.model = model
        self.rho = rho
        self.case = cases.get(case)
        self.adaptive = ascent.check_adaptive(adaptive)
        self.perturb = participants.check_kinds(perturb)
        self.batch_norm = batch_norm
        self.strategy = strategies.get(strategy)
        self.sync_perturbation = sync_perturbation
        self.scale_learning_rate = optimizers.check_scale_learning_rate(
            scale_learning_rate
        )
        self.decay_scales = bool(decay_scales)
        self.training_state = TrainingState(name="training_state")
        self.training_state.attach(self)
        self.distillation = distillation
        self.built = model.built

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    @property
    def distillation(self):
        """The `keras_saq.Distillation` of this model, or `None`."""
        return self.__dict__.get("_distillation")

    @distillation.setter
    def distillation(self, value):
        if value is not None and not isinstance(value, Distillation):
            raise ValueError(
                "`distillation` must be a `keras_saq.Distillation`, such as "
                "`keras_saq.Distillation(float_model)`. "
                f"Received: {value!r} of type {type(value).__name__}"
            )
        # Not an attribute that Keras tracks: the teacher is no part of this.
        self.__dict__["_distillation"] = value

    def compile(self, *args, **kwargs):
        """`keras.Model.compile`; see `scale_learning_rate`, `decay_scales`."""
        super().compile(*args, **kwargs)
        if not self.decay_scales:
            optimizers.exclude_scales_from_weight_decay(self.optimizer, self)
        optimizers.scale_learning_rate(
            self.optimizer, self, self.scale_learning_rate
        )
        if self.built:
            self._build_strategy()

    def _build_strategy(self):
        self.strategy.build(self.training_state, self.trainable_variables)

    def make_train_function(self, force=False):
        """Called by Keras before the first step, with everything built."""
        self._build_strategy()
        return super().make_train_function(force=force)

    def fit(self, x=None, *args, reestimate_batch_norm=True, **kwargs):
        """`keras.Model.fit` of a quantized model; warns of steep ascents.

        See `keras_saq.models.model.Trainable.fit` for the batch norms.
        """
        _check_not_empty(x)
        given = arguments_of_fit(x, *args, **kwargs)
        if self.compiled:
            self._build_strategy()
            self.strategy.begin(*updates_of_fit(self.optimizer, given))
        given["callbacks"] = with_callback(given["callbacks"], AscentGuard())
        del given["self"]
        return super().fit(
            reestimate_batch_norm=reestimate_batch_norm
            and self.batch_norm != "neither",
            **given,
        )

    @property
    def ascent_factor(self):
        """Mean loss at the perturbed weights, over that at the clean ones.

        Of the steps of the last epoch that made both passes; `None` if there
        was none. What is far above 1 is no neighbourhood: lower `rho`.
        """
        before, after = ops.convert_to_numpy(self.training_state.ascent)
        return float(after / before) if before else None

    def train_step(self, *args):
        """The step of `strategy`; the arguments are the Keras backend's."""
        return _backend_step()(self, *args)

    def teach(self, x):
        """The teacher's predictions, or `None` without distillation."""
        return self.distillation and self.distillation.targets(x)

    def training_loss(self, batch, y_pred):
        """The loss of a pass: `compute_loss`, with distillation if any."""
        loss = self.compute_loss(
            x=batch.x,
            y=batch.y,
            y_pred=y_pred,
            sample_weight=batch.sample_weight,
            training=True,
        )
        if batch.trajectory is not None:
            loss = loss + ops.cast(
                self.strategy.trajectory_loss(
                    y_pred, batch.trajectory, batch.sample_weight
                ),
                loss.dtype,
            )
        if batch.teacher is None:
            return loss
        return self.distillation(
            loss, y_pred, batch.teacher, batch.sample_weight
        )

    def save_weights(self, filepath, **kwargs):
        """Saves the weights of the model inside, as that model would.

        Of a compiled model, the optimizer and the state of training are
        saved with them, so that `keras.callbacks.BackupAndRestore` continues.
        """
        with training_attached(self):
            self.model.save_weights(filepath, **kwargs)

    def load_weights(self, filepath, **kwargs):
        """Loads weights into the model inside; see `save_weights`."""
        with training_attached(self, filepath):
            self.model.load_weights(filepath, **kwargs)

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "rho": rho_module.serialize(self.rho),
            "case": self.case.number,
            "adaptive": self.adaptive,
            "perturb": list(self.perturb),
            "batch_norm": self.batch_norm,
            "strategy": keras.saving.serialize_keras_object(self.strategy),
            "sync_perturbation": self.sync_perturbation,
            "scale_learning_rate": self.scale_learning_rate,
            "decay_scales": self.decay_scales,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        return cls(model, **config)


def _check_options(batch_norm, sync_perturbation):
    if batch_norm not in BATCH_NORM:
        raise ValueError(
            f"`batch_norm` must be one of {list(BATCH_NORM)}. "
            f"Received: batch_norm={batch_norm!r}"
        )
    if sync_perturbation not in (None, True, False):
        raise ValueError(
            "`sync_perturbation` must be None, True or False. "
            f"Received: sync_perturbation={sync_perturbation!r}"
        )


def _check_not_empty(data):
    """Raises for data of which it is known that there is none."""
    arrays = keras.tree.flatten(data) if isinstance(data, (list, dict)) else []
    for each in [data, *arrays]:
        size = None
        if hasattr(each, "cardinality"):
            size = int(each.cardinality())  # a tf.data.Dataset; < 0: unknown
        elif getattr(each, "shape", None):
            size = each.shape[0]
        elif isinstance(each, keras.utils.PyDataset):
            size = each.num_batches
        if size == 0:
            raise ValueError(
                "`fit` needs at least one batch of data. Received an empty "
                f"{type(each).__name__}. Check the path, the filter or the "
                "slice that it was made with."
            )


def _backend_step():
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from keras_saq.sharpness import tensorflow_step as step
    elif backend == "jax":
        from keras_saq.sharpness import jax_step as step
    elif backend == "torch":
        from keras_saq.sharpness import torch_step as step
    else:
        raise ValueError(
            "`SAQModel` trains on the TensorFlow, JAX and torch backends of "
            f"Keras. Received: backend='{backend}'. Set the environment "
            "variable KERAS_BACKEND to 'tensorflow', 'jax' or 'torch'."
        )
    return step.train_step
