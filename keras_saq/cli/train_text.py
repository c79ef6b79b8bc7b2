"""What `keras-saq train` prints and records about a run, for people."""

import sys


def describe(model, path, is_quantized):
    """What run.json says of the model."""
    return {
        "path": str(path),
        "name": model.name,
        "parameters": model.count_params(),
        "quantized": is_quantized,
    }


def sizes(source, train, validation, test):
    """What run.json says of the data."""
    return {
        "name": source.name,
        "train": len(train),
        "validation": len(validation) if validation else 0,
        "test": len(test) if test else 0,
        "input_shape": [int(n) for n in train.x.shape[1:]],
        "classes": train.num_classes,
    }


def print_plan(args, model, is_quantized, source, batches, held_out, tested):
    """Says what will be done, before it is."""
    kind = "quantized" if is_quantized else "float"
    print(f"model: {model.name}, {kind}, {model.count_params():,} parameters")
    samples = batches.samples
    classes = samples.num_classes
    classes = f", {classes} classes" if classes else ""
    parts = [f"{len(samples):,} training"]
    for part, name in ((held_out, "held out"), (tested, "test")):
        if part is not None:
            parts.append(f"{len(part.samples):,} {name}")
    print(
        f"data: {source.name}, {', '.join(parts)} samples of shape "
        f"{tuple(samples.x.shape[1:])}{classes}"
    )
    step = args.method
    if step == "saq":
        step += f", rho {args.rho:g}, {args.strategy}, case {args.case}"
    print(
        f"training: {step}; {args.epochs} epochs of {len(batches)} steps, "
        f"batch {batches.batch_size}"
    )


def warn_of_chance(values, objective):
    """Warns where the float model knows nothing: wrong preprocessing?"""
    if not objective.num_classes:
        return
    # Of two classes chance is 50 %, of ten 10 %.
    if values["accuracy"] < 0.05 + 1 / objective.num_classes:
        print(
            f"warning: the float model is right on {values['accuracy']:.1%} "
            "of the test samples, which is about chance. If it is trained, "
            "check --scale, --mean and --std: they must be those of its "
            "training.",
            file=sys.stderr,
        )


def print_results(folder):
    """The table of results, and what the folder holds."""
    from keras_saq.table import format_table

    record = folder.record
    columns = [
        ("float model", record["float_test"]),
        ("before training", record["before_test"]),
        ("after training, moving statistics", record.get("moving_test")),
        ("after training", record["test"]),
    ]
    rows = [(name, values) for name, values in columns if values]
    if rows:
        names = sorted(rows[0][1])
        cells = [
            (name, *(f"{values[n]:.4f}" for n in names))
            for name, values in rows
        ]
        print("\n" + format_table(("test", *names), cells))
    best = record.get("best")
    if best:
        key = next(k for k in best if k != "epoch")
        print(
            f"\nbest epoch on the held-out part: {best['epoch'] + 1}, {key} "
            f"{best[key]:.4f} (best.keras)"
        )
    names = sorted(p.name for p in folder.path.glob("[!.]*"))
    print(
        f"{record['epochs_done']} epochs, {record['seconds']:.0f} seconds; "
        f"in {folder.path}: {', '.join(names)}"
    )
