"""What `keras-saq train` does between reading and reporting."""

import contextlib
import time

import keras

from keras_saq import callbacks
from keras_saq.cli import output
from keras_saq.cli import run_folder
from keras_saq.cli.precision import mixed_precision
from keras_saq.data import Batches
from keras_saq.data import get_augmentation
from keras_saq.sharpness import Distillation
from keras_saq.sharpness import SAQModel
from keras_saq.tensorboard import ScalarWriter

OPTIMIZERS = {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3}


class EpochScalars(keras.callbacks.Callback):
    """Writes the logs of each epoch for TensorBoard."""

    def __init__(self, log_dir):
        super().__init__()
        self._writer = ScalarWriter(log_dir)

    def on_epoch_end(self, epoch, logs=None):
        rate = float(keras.ops.convert_to_numpy(self._rate()))
        self._writer.write({**(logs or {}), "learning_rate": rate}, epoch)

    def on_train_end(self, logs=None):
        self._writer.close()

    def _rate(self):
        return self.model.optimizer.learning_rate


def make_trainee(args, model, teacher, objective):
    """The model with its train step, not compiled.

    Args:
        args: the command's flags.
        model: a quantized or float model.
        teacher: a float model, or `None`.
        objective: a `keras_saq.cli.losses.Objective`.
    """
    distillation = teacher and Distillation(
        teacher,
        weight=args.distillation_weight,
        temperature=args.temperature,
        from_logits=objective.from_logits,
    )
    if args.method != "saq":
        return SAQModel(
            model,
            rho=0.0,
            strategy="none",
            scale_learning_rate=args.scale_learning_rate,
            distillation=distillation,
        )
    return SAQModel(
        model,
        rho=args.rho,
        case=args.case,
        adaptive=False if args.adaptive == "none" else args.adaptive,
        batch_norm=args.batch_norm,
        strategy=args.strategy,
        scale_learning_rate=args.scale_learning_rate,
        distillation=distillation,
    )


def compile_for(model, objective, optimizer=None):
    """Compiles with an objective; returns the model."""
    model.compile(
        optimizer or "sgd",
        loss=objective.loss,
        metrics=[objective.make_metric()],
    )
    return model


def make_optimizer(args, steps_per_epoch):
    """The optimizer with its schedule."""
    rate = args.learning_rate or OPTIMIZERS[args.optimizer]
    steps = max(1, args.epochs * steps_per_epoch)
    warmup = round(args.warmup_epochs * steps_per_epoch)
    schedules = keras.optimizers.schedules
    if args.schedule == "cosine":
        rate = schedules.CosineDecay(
            0.0 if warmup else rate,
            max(1, steps - warmup),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    elif warmup:
        rate = schedules.PolynomialDecay(0.0, warmup, end_learning_rate=rate)
    decay = args.weight_decay or None
    if args.optimizer == "sgd":
        return keras.optimizers.SGD(
            rate,
            momentum=args.momentum,
            nesterov=args.momentum > 0,
            weight_decay=decay,
        )
    if args.optimizer == "adamw":
        decay = 0.004 if args.weight_decay is None else args.weight_decay
        return keras.optimizers.AdamW(rate, weight_decay=decay)
    return keras.optimizers.Adam(rate, weight_decay=decay)


def train_batches(args, samples, preprocess):
    """Shuffled and augmented batches."""
    return Batches(
        samples,
        args.batch_size,
        preprocess,
        get_augmentation(args.augment, tuple(samples.x.shape[1:])),
        shuffle=True,
        seed=args.seed,
        max_batches=args.limit_steps,
    )


def train(args, folder, trainee, objective, batches, validation):
    """Trains to the last epoch, from where the folder says.

    Args:
        args: the command's flags.
        folder: the `RunFolder`, which exists.
        trainee: the `SAQModel`, not compiled.
        objective: an `Objective`.
        batches: `Batches` for training.
        validation: `Batches`, or `None`.
    """
    start, before = time.monotonic(), folder.record["seconds"]
    model = trainee.model
    with mixed_precision(model, args.mixed_precision) as as_saved:
        if args.mixed_precision == "mixed_float16":
            # So that `compile` scales the loss.
            trainee.dtype_policy = keras.dtype_policies.get("mixed_float16")
        optimizer = make_optimizer(args, len(batches))
        compile_for(trainee, objective, optimizer)
        done = folder.restore(trainee)
        if done:
            print(f"going on after epoch {done} of {args.epochs}")
        hooks = _callbacks(
            args,
            folder,
            objective,
            batches,
            validation,
            lambda: before + time.monotonic() - start,
            as_saved,
        )
        with _closed(hooks):
            trainee.fit(
                batches,
                epochs=args.epochs,
                initial_epoch=done,
                shuffle=False,  # `Batches` do, the same way each time
                validation_data=validation,
                verbose=output.verbosity(),
                callbacks=hooks,
                reestimate_batch_norm=False,  # see `remeasure`
            )
    if trainee.stop_training:
        raise ValueError(
            "The loss is not finite. What was trained up to the epoch before "
            f"is in '{folder.path}'. Lower `--learning-rate`, or look for NaN "
            "in the data, and give `--output` the name of a new folder."
        )
    folder.record["seconds"] = round(before + time.monotonic() - start, 1)


def remeasure(args, model, batches):
    """Measures batch norms again, on batches of the last epoch.

    Apart from `train`: it is done again where every epoch was done before an
    interruption.

    Args:
        args: the command's flags.
        model: the trained model.
        batches: `Batches` for training.
    """
    batches.epoch = args.epochs - 1
    part = (batches[i] for i in range(min(len(batches), 50)))
    count = callbacks.reestimate_batch_norm(model, part)
    print(f"measured the statistics of {count} batch norms again")


@contextlib.contextmanager
def _closed(hooks):
    """Closes the callbacks' files where training is interrupted."""
    writers = keras.callbacks.CSVLogger, callbacks.QuantizationMonitor
    try:
        yield
    finally:
        for hook in hooks:
            if isinstance(hook, (*writers, EpochScalars)):
                hook.on_train_end()


def _callbacks(args, folder, objective, batches, validation, clock, as_saved):
    log_dir = folder.path / "tensorboard" if args.tensorboard else None
    found = [batches.epochs(), keras.callbacks.TerminateOnNaN()]
    if args.freeze_scales is not None:
        found.append(callbacks.ScaleFreezing(args.freeze_scales))
    if args.method != "float":
        if args.sharpness_samples:
            part = Batches(
                batches.samples.choose(args.sharpness_samples, args.seed),
                args.batch_size,
                batches.preprocess,
            )
            rho = args.rho if args.method == "saq" and args.rho else 0.05
            found.append(
                callbacks.SharpnessMonitor(_arrays(part), rho, log_dir)
            )
        else:
            found.append(callbacks.QuantizationMonitor(log_dir))
    if log_dir is not None:
        found.append(EpochScalars(log_dir))
    if validation is not None:
        found.append(
            run_folder.BestModel(
                folder,
                f"val_{objective.metric}",
                objective.larger_is_better,
                as_saved,
            )
        )
    found.append(keras.callbacks.CSVLogger(folder.history, append=True))
    found.append(run_folder.EpochRecord(folder, clock))
    return found


def _arrays(batches):
    x, y = batches.samples.x[:], batches.samples.y
    return batches.preprocess(x), y
