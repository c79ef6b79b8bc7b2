"""`keras-saq train`: from a model and data to a trained quantized model."""

import json
import pathlib
import sys

from keras_saq.cli import config
from keras_saq.cli import data_flags
from keras_saq.cli import files
from keras_saq.cli import output
from keras_saq.cli import policies
from keras_saq.cli import train_flags
from keras_saq.cli import train_text
from keras_saq.cli.verify import EXIT_DEVIATES
from keras_saq.models.wrapper import inner_model

HELP = "train a .keras model with SAQ or QAT on any data set"
DESCRIPTION = """\
Trains a model with sharpness-aware quantization (SAQ), plain quantization-aware
training (QAT) or in float. A float model is quantized first, with --policy;
one that `keras-saq quantize` wrote is trained as it is.

The folder RUN gets run.json (settings and results), history.csv, model.keras
and best.keras. An interrupted run goes on where it stopped when the same
command is given again, and comes to the same result. RUN/run.json can be given
back as --config.
"""
EXAMPLES = """\
  keras-saq train float.keras --data=train.npz --output=run \\
      --policy=w4a8 --epochs=2
  keras-saq train quantized.keras --data=images --scale=1/255 --output=run2 \\
      --method=qat --augment=shift_flip --epochs=2
  keras-saq train float.keras --data=cifar10 --scale=1/255 --output=cifar \\
      --rho=0.1 --teacher=float.keras --export=model.tflite
  keras-saq train --config=run/run.json --output=again"""

EXIT_INTERRUPTED = 130
add_arguments = train_flags.add_arguments


def run(args):
    """Trains, and prints what came out."""
    with output.progress_apart(args.json):
        folder, code = _run(args)
    if args.json:
        print(json.dumps(folder.record, default=str))
    return code


def _run(args):
    """The folder and the exit code."""
    from keras_saq.cli.run_folder import RunFolder

    _check(args)
    settings = config.settings_of(args)
    inputs = {name: getattr(args, name) for name in ("model", "teacher")}
    inputs["policy"] = (args.policy or "").endswith(".json") and args.policy
    folder = RunFolder(
        args.output,
        ["keras-saq", *sys.argv[1:]],
        settings,
        {name: path for name, path in inputs.items() if path},
    )
    try:
        return folder, _go_on(args, folder)
    finally:
        folder.release()


def _go_on(args, folder):
    """Trains what is left; the exit code."""
    if folder.is_finished:
        print(
            f"The run in '{folder.path}' is finished; nothing was trained. "
            "Another --output starts a new one."
        )
        code = _export_of_finished(args, folder)
        train_text.print_results(folder)
        return code
    try:
        return _train(args, folder)
    except KeyboardInterrupt:
        if folder.record["epochs_done"]:
            folder.write(status="interrupted")
        print(
            f"\ninterrupted; {folder.record['epochs_done']} of {args.epochs} "
            "epochs are saved. The same command goes on there.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED


def _check(args):
    """Refuses what can be seen to be wrong before anything is loaded."""
    if args.method == "float":
        flag = policies.was_given(args) or (args.export and "--export")
        if flag:
            raise ValueError(
                f"`{flag}` is for a quantized model, and `--method=float` "
                "trains in float. Leave one of them out."
            )
        if args.freeze_scales is not None or args.sharpness_samples:
            raise ValueError(
                "`--freeze-scales` and `--sharpness-samples` are for a "
                "quantized model, and `--method=float` trains in float."
            )
    if args.freeze_scales is not None and args.freeze_scales >= args.epochs:
        raise ValueError(
            f"`--freeze-scales={args.freeze_scales}` begins after the last "
            f"epoch: there are {args.epochs}, counted from 0."
        )
    if args.method != "saq":
        given = [
            "--" + name.replace("_", "-")
            for name, default in train_flags.SAQ_DEFAULTS.items()
            if getattr(args, name) != default
        ]
        if given:
            print(
                f"note: {', '.join(given)} is for --method=saq and changes "
                f"nothing with --method={args.method}",
                file=sys.stderr,
            )
    if args.export:
        output.check_file(pathlib.Path(args.export), ".tflite")
    data_flags.preprocessing(args)


def _train(args, folder):
    import keras

    from keras_saq.cli import losses
    from keras_saq.cli import training
    from keras_saq.data import Batches
    from keras_saq.data import open_source
    from keras_saq.models import quantized_layers
    from keras_saq.models.reestimate import trainable_norms

    keras.utils.set_random_seed(args.seed)
    model = inner_model(files.load_model(args.model, args.imports))
    is_quantized = bool(quantized_layers(model))
    policy = _policy(args, is_quantized)
    teacher = None
    if args.teacher:
        teacher = inner_model(files.load_model(args.teacher, args.imports))
        teacher.trainable = False
    source = open_source(args.data, args.data_dir)
    train, validation, test = _samples(args, source, model)
    objective = losses.choose(model, train, args.loss)
    for part, flag in (
        (validation, "--train-split"),
        (test, "--test-split"),
    ):
        if part is not None:
            losses.check_labels(objective, part, flag)
    if teacher is not None:
        losses.require_same_kind(model, teacher, train, objective)
    preprocess = data_flags.preprocessing(args)
    batches = training.train_batches(args, train, preprocess)
    held_out = validation and Batches(validation, args.batch_size, preprocess)
    tested = test and Batches(test, args.batch_size, preprocess)
    train_text.print_plan(
        args, model, is_quantized, source, batches, held_out, tested
    )
    print(f"loss: {objective.reason}")

    def evaluate(network):
        if tested is None:
            return None
        trainee = training.SAQModel(network)
        training.compile_for(trainee, objective)
        values = trainee.evaluate(
            tested, return_dict=True, verbose=output.verbosity()
        )
        return {name: float(value) for name, value in values.items()}

    # What does not fit shows here, before there is a folder.
    for part in (batches, held_out, tested):
        if part is not None:
            part[0]
    folder.record["model"] = train_text.describe(
        model, args.model, is_quantized
    )
    folder.record["data"] = train_text.sizes(source, train, validation, test)
    folder.record["loss"] = objective.reason
    folder.create()
    float_model = None if is_quantized else model
    if float_model is None and teacher is not None:
        float_model = teacher
    if policy is not None:
        model = _quantized(args, model, policy, train, preprocess)
    elif args.method != "float":
        _calibrate(args, model, train, preprocess)
    if folder.record["before_test"] is None and tested is not None:
        if float_model is not None and args.method != "float":
            print("testing the float model")
            folder.record["float_test"] = evaluate(float_model)
            train_text.warn_of_chance(folder.record["float_test"], objective)
        print("testing before training")
        folder.write(before_test=evaluate(model))

    # Again: what was evaluated or not must not matter.
    keras.utils.set_random_seed(args.seed)
    trainee = training.make_trainee(args, model, teacher, objective)
    training.train(args, folder, trainee, objective, batches, held_out)
    if trainable_norms(model) and not args.moving_statistics:
        if tested is not None:
            print("testing with the moving statistics of batch norms")
            folder.record["moving_test"] = evaluate(model)
        training.remeasure(args, model, batches)
    if tested is not None:
        print("testing after training")
        folder.record["test"] = evaluate(model)
    output.save_model(model, folder.path / "model.keras")
    code = 0
    if args.export:
        code = _export(args, folder, model, test or train, preprocess)
    folder.finish()
    train_text.print_results(folder)
    return code


def _policy(args, is_quantized):
    """The policy to quantize with, or `None`."""
    if args.method == "float":
        if is_quantized:
            raise ValueError(
                f"'{args.model}' is quantized, and `--method=float` trains in "
                "float. Use `--method=qat` or `--method=saq`, or a float model."
            )
        return None
    flag = policies.was_given(args)
    if is_quantized and flag:
        raise ValueError(
            f"'{args.model}' is quantized already, so `{flag}` would change "
            "nothing. Leave it out, or give the float model."
        )
    if is_quantized:
        return None
    policy = policies.make(args)
    if args.export and policy.scheme != "litert":
        raise ValueError(
            "`--export` needs the scheme 'litert': with "
            f"'{policy.scheme}' some tensors stay in float."
        )
    return policy


def _samples(args, source, model):
    """Training, validation and test samples; the last two may be `None`."""
    split = args.train_split or source.train_split
    train = data_flags.load(source, split, args, model)
    validation = None
    if args.validation_split:
        train, validation = train.hold_out(args.validation_split, args.seed)
    split = args.test_split or source.test_split
    if split in (None, "none"):
        return train, validation, None
    test = data_flags.load(source, split, args, model, args.limit_test)
    return train, validation, test


def _quantized(args, model, policy, samples, preprocess):
    from keras_saq.models import quantize_model

    chosen = _calibration_samples(args, samples)
    print(
        f"quantizing: {args.policy or 'w4a8'}, scales from {len(chosen)} "
        "training samples"
    )
    return quantize_model(model, policy, preprocess(chosen.x[:]))


def _calibrate(args, model, samples, preprocess):
    """Takes the scales that a quantized model still lacks."""
    from keras_saq.models import calibrate
    from keras_saq.models.calibration import uncalibrated_layers

    if uncalibrated_layers(model):
        chosen = _calibration_samples(args, samples)
        print(f"taking missing scales from {len(chosen)} training samples")
        calibrate(model, preprocess(chosen.x[:]))


def _calibration_samples(args, samples):
    from keras_saq.models.calibration import MAX_SAMPLES

    # Of more the first would be used, which are of the first classes where
    # the data are sorted.
    count = min(args.calibration_samples, MAX_SAMPLES)
    return samples.choose(count, args.seed)


def _export_of_finished(args, folder):
    """The exit code of the export; it is written if it was not yet."""
    if not args.export:
        return 0
    done = folder.record.get("export") or {}
    if done.get("path") == args.export and pathlib.Path(args.export).exists():
        return 0 if done["within_bounds"] else EXIT_DEVIATES
    from keras_saq.data import open_source

    model = files.load_model(folder.path / "model.keras", args.imports)
    source = open_source(args.data, args.data_dir)
    train, _, test = _samples(args, source, model)
    preprocess = data_flags.preprocessing(args)
    code = _export(args, folder, model, test or train, preprocess)
    folder.write()
    return code


def _export(args, folder, model, samples, preprocess):
    from keras_saq.export import export_litert

    chosen = samples.choose(args.verify_samples, args.seed)
    print(f"writing {args.export}, verifying on {len(chosen)} samples")
    report = export_litert(model, args.export, verify=preprocess(chosen.x[:]))
    parity = report.parity
    folder.record["export"] = {
        "path": args.export,
        "file_bytes": report.file_bytes,
        "reference_exact": parity.reference_exact,
        "within_bounds": parity.within_bounds,
        "max_lsb": parity.max_lsb,
        "exact": parity.exact,
        "top1_agreement": parity.top1_agreement,
    }
    print(parity)
    return 0 if parity.within_bounds else EXIT_DEVIATES
