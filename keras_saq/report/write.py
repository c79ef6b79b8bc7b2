"""`write_report`: all that is known of a model on one page."""

import json
import pathlib

from keras import ops
from keras import tree

from keras_saq.models.wrapper import inner_model
from keras_saq.version import __version__
from keras_saq.whole_file import replaced

_FORMAT = "keras_saq report 1"


def write_report(
    path,
    model,
    history=None,
    data=None,
    *,
    data_name=None,
    label=None,
    title=None,
    compare=None,
    float_model=None,
    metrics=None,
    file=None,
    parity=None,
    policy=None,
    front=None,
    run=None,
    sharpness=True,
    loss=None,
    rho=0.05,
    points=11,
    span=0.5,
    batch_size=128,
    seed=0,
    verbose=1,
):
    """Writes a page about a model, and its numbers as JSON beside it.

    The page is one HTML file that needs no network. It shows what was
    quantized and what it costs, weights on their grids, and, each where it is
    given: training curves, accuracy, sharpness and loss landscape, the
    search, the integer file and the proof that it computes what it should.
    Equal inputs give equal files.

    Args:
        path: the `.html` file; the JSON has the same name and `.json`.
        model: the quantized model, a `SAQModel`, or a float model.
        history: what `fit` returned, its `.history`, or a dict from labels of
            models to such.
        data: `(x, y)` to measure accuracy, sharpness and parity on, or `x`
            alone for parity; a few hundred samples are enough.
        data_name: what the data is called on the page.
        label: what the model is called beside others, such as `"SAQ"`; by
            default the first label of `history`, or `"model"`.
        title: head of the page; by default the model's name.
        compare: dict from labels to models of other trainings, such as
            `{"QAT": qat_model}`; sharpness and accuracy are measured of them
            too.
        float_model: the float model, for its accuracy on `data`.
        metrics: what was measured before, dict from `"float"`, `"file"` or a
            label to a dict of metrics.
        file: path of the `.tflite` file that was written from the model, or
            the `ExportReport` of that.
        parity: a `ParityReport`, where the file was verified before.
        policy: a policy that a search made, or the path of its `.json`.
        front: what `PolicySearch.front` returned.
        run: dict with `"command"`, `"settings"`, `"epochs_done"`,
            `"seconds"` and `"version"` of the training, each optional.
        sharpness: whether to measure it where `data` has labels: some 40
            gradients over the data, and points² losses, for each model.
        loss: a Keras loss, in place of the compiled one.
        rho: radius for the sharpness.
        points: of the landscape along each direction, odd; 0 for none.
        span: how far the landscape goes; 1 is the length of the weights.
        batch_size: of all measurements.
        seed: of the landscape's directions.
        verbose: whether to print what is being measured.

    Returns:
        The dict that the JSON file holds.

    Raises:
        ValueError: if a path, the data, a file or a policy is not what it
            must be. No file is written then.

    Example:

    >>> import keras, keras_saq, numpy as np, tempfile
    >>> inputs = keras.Input((16,))
    >>> model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    >>> x = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
    >>> q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    >>> path = tempfile.mkdtemp() + "/report.html"
    >>> report = keras_saq.write_report(path, q)
    >>> report["model"]["weights_by_bits"]
    {'8': 64}
    """
    # Here, so that who only imports the package does not wait for it.
    from keras_saq.report.evidence import accuracy
    from keras_saq.report.evidence import files
    from keras_saq.report.evidence import flatness
    from keras_saq.report.evidence import found
    from keras_saq.report.evidence import grids
    from keras_saq.report.evidence import layers
    from keras_saq.report.evidence import training
    from keras_saq.report.evidence.plain import plain
    from keras_saq.report.page import render

    path, json_path = _check_paths(path)
    x, y = _split(data)
    _check_points(points)
    _check_metrics(metrics)
    compare = dict(compare or {})
    runs = training.by_run(history, label or "model")
    label = str(label or next(iter(runs), "model"))
    _check_labels(label, compare)
    say = (lambda text: print(f"{text} ...", flush=True)) if verbose else _hush
    models = {label: model, **compare}
    names = dict.fromkeys([label, *runs, *compare])
    described = layers.describe(model)
    report = {
        "format": _FORMAT,
        "keras_saq": __version__,
        "json": json_path.name,
        "title": str(title or inner_model(model).name),
        "label": label,
        "data": data_name,
        "colors": {name: i % 6 for i, name in enumerate(names)},
        "model": described,
        "metrics": metrics or {},
        "training": runs,
        "search": found.describe(policy, front, described["layers"]) or None,
        "run": run,
    }
    report["weights"], report["activations"] = grids.grids(model)
    if file is not None and x is not None and parity is None:
        say("running the file")
    exported, parity = files.read(file, model, x, parity)
    if exported is not None:
        report["file"] = files.describe(exported)
    if parity is not None:
        report["parity"] = parity.to_dict()
    if y is not None:
        say("accuracy")
        measured = accuracy.measure(
            models if float_model is None else {"float": float_model, **models},
            x,
            y,
            batch_size,
            parity,
        )
        if measured:
            samples = len(tree.flatten(x)[0])
            report["accuracy"] = {"samples": samples, "by_model": measured}
        if sharpness:
            report["sharpness"] = flatness.measure(
                models, (x, y), loss, rho, points, span, batch_size, seed, say
            )
    report = {k: v for k, v in plain(report).items() if v not in (None, {})}
    page = render(report).encode()
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)
    with replaced(json_path) as json_file, replaced(path) as html_file:
        json_file.write(f"{text}\n".encode())
        html_file.write(page)
    return report


def _hush(text):
    """Says nothing."""


def _check_paths(path):
    """The page's path and that of the JSON, both free to be written."""
    path = pathlib.Path(path)
    if path.suffix != ".html":
        raise ValueError(
            f"The name of a report must end in '.html'. Received: '{path}'"
        )
    if not path.parent.is_dir():
        raise ValueError(f"The folder of '{path}' does not exist.")
    json_path = path.with_suffix(".json")
    for there in (path, json_path):
        if there.is_dir():
            raise ValueError(f"'{there}' is a folder.")
    if json_path.is_file() and not _is_report(json_path):
        raise ValueError(
            f"The numbers of the report go to '{json_path}', and there is "
            "another file of this name, which would be lost. Give the report "
            "another name."
        )
    return path, json_path


def _is_report(path):
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == _FORMAT


def _split(data):
    """`(x, y)`; both may be `None`."""
    if data is None:
        return None, None
    if not isinstance(data, tuple):
        return data, None
    if len(data) != 2:
        raise ValueError(
            "`data` must be `(x, y)`, or the inputs `x` alone. "
            f"Received: a tuple of {len(data)}"
        )
    x, y = data
    sizes = {len(ops.convert_to_numpy(a)) for a in tree.flatten((x, y))}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`data` must have as many labels as inputs, and at least one. "
            f"Received: arrays of {sorted(sizes)} samples"
        )
    return x, y


def _check_points(points):
    if points and (points < 3 or points % 2 == 0):
        raise ValueError(
            "`points` must be odd and at least 3, or 0 for no landscape. "
            f"Received: points={points}"
        )


def _check_metrics(metrics):
    if metrics is None:
        return
    if not isinstance(metrics, dict) or not all(
        isinstance(row, dict) for row in metrics.values()
    ):
        raise ValueError(
            "`metrics` must be a dict from 'float', 'file' or a label to a "
            "dict of metrics, such as {'float': {'accuracy': 0.9}}. "
            f"Received: {metrics!r}"
        )


def _check_labels(label, compare):
    taken = {"float", "file"} & {label, *compare}
    if taken or label in compare:
        raise ValueError(
            "Labels of models must differ, and 'float' and 'file' are taken. "
            f"Received: label={label!r} and compare={sorted(compare)}"
        )
