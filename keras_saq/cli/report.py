"""`keras-saq report`: a run, or a model, on one page."""

import csv
import json
import pathlib

from keras_saq.cli import arguments
from keras_saq.cli import data_flags
from keras_saq.cli import files
from keras_saq.cli import output
from keras_saq.untrusted import parse_json

HELP = "one page about a run or a model: bits, curves, sharpness, proof"
DESCRIPTION = """\
Writes one HTML page that needs no network, and a JSON file with its numbers
beside it, about the folder that `keras-saq train` made or about a .keras file:
what was quantized and what it costs, training curves, weights on their grids,
and, with --data, --tflite and --policy, accuracy, sharpness and the loss
landscape, the proof of the file, and the search. --compare puts other runs,
such as QAT beside SAQ, into the same plots. Inputs are resized and scaled and
the loss is taken as in the run, unless --image-size, --scale, --mean and --std
say how.
"""
EXAMPLES = """\
  keras-saq report run
  keras-saq report model.keras --output=model.html
  keras-saq report saq --compare=qat --data=test.npz --output=both.html
  keras-saq report run --data=cifar10 --scale=1/255 --samples=256 \\
      --tflite=model.tflite --policy=policy.json --float-model=float.keras"""


def add_arguments(parser):
    """The flags of the command."""
    files.add_model_arguments(
        parser, "folder of a run, or a quantized or float"
    )
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="RUN",
        help="another run or .keras file, to be shown beside it; may be "
        "given several times",
    )
    parser.add_argument(
        "--float-model",
        metavar="FILE",
        help="the float model, a .keras file, for its accuracy on --data",
    )
    parser.add_argument(
        "--tflite", metavar="FILE", help="the file written from the model"
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="the policy.json that `keras-saq search` wrote",
    )
    parser.add_argument("--data", help=f"to measure on: {data_flags.DATA_HELP}")
    parser.add_argument(
        "--split", help="part of --data (default: its test part)"
    )
    parser.add_argument(
        "--samples",
        type=arguments.positive_integer,
        default=512,
        help="how many samples of --data (default: %(default)s)",
    )
    data_flags.add_preprocessing(parser)
    # What the run was trained with, where nothing else is said.
    parser.set_defaults(scale=None, mean=None, std=None)
    parser.add_argument(
        "--no-sharpness",
        action="store_true",
        help="leave sharpness and loss landscape out, which take longest",
    )
    parser.add_argument(
        "--rho",
        type=arguments.positive,
        default=0.05,
        help="radius for the sharpness (default: %(default)s)",
    )
    parser.add_argument(
        "--points",
        type=arguments.natural_number,
        default=11,
        help="points of the landscape along each direction, odd; 0 for no "
        "landscape (default: %(default)s)",
    )
    parser.add_argument(
        "--title", help="head of the page (default: the model's name)"
    )
    parser.add_argument(
        "--output",
        default="report.html",
        help="the page; the JSON goes beside it (default: %(default)s)",
    )
    arguments.add_json(parser)


def run(args):
    """Writes the page and prints where it is."""
    with output.progress_apart(args.json):
        report = _run(args)
    if args.json:
        print(json.dumps(report))


def _run(args):
    path = pathlib.Path(args.output)
    output.check_file(path, ".html")
    # Imported here: a bad path is told before anything is loaded.
    from keras_saq.report import write_report

    runs = [_Run(text) for text in (args.model, *args.compare)]
    _name(runs)
    policy = args.policy
    if policy is not None:
        from keras_saq.policy import QuantizePolicy

        QuantizePolicy.load(policy)  # a bad one is told before models load
    for entry in runs:
        entry.load(args.imports)
    main, *others = runs
    float_model = None
    if args.float_model:
        float_model = files.load_model(args.float_model, args.imports)
    data, loss, name = _data(args, main)
    history = {r.label: r.history for r in runs if r.history}
    report = write_report(
        path,
        main.model,
        history or None,
        data,
        data_name=name,
        label=main.label,
        title=args.title,
        compare={r.label: r.model for r in others},
        float_model=float_model,
        metrics=_metrics(runs),
        file=args.tflite,
        policy=policy,
        run=main.facts,
        sharpness=not args.no_sharpness,
        loss=loss,
        rho=args.rho,
        points=args.points,
    )
    print(f"written: {path} and {path.with_suffix('.json')}")
    return report


class _Run:
    """A folder of a run, or a `.keras` file.

    Attributes:
        record: what `run.json` holds; empty for a file.
        history: dict of columns, empty where there is none.
        label: what it is called in plots.
        model: the Keras model, after `load`.
    """

    def __init__(self, text):
        self.path = pathlib.Path(text)
        self.record, self.history, self.model = {}, {}, None
        self.label = self.path.stem or self.path.resolve().name
        if not self.path.is_dir():
            if self.path.suffix not in files.MODEL_SUFFIXES:
                raise ValueError(
                    f"'{self.path}' is neither the folder of a run, which "
                    "`keras-saq train` makes, nor a .keras file."
                )
            self._model_path = self.path
            return
        self.record = _read_record(self.path / "run.json")
        self.history = _read_history(self.path / "history.csv")
        self._model_path = self.path / "model.keras"
        if not self._model_path.is_file():
            self._model_path = self.path / "best.keras"
        if not self._model_path.is_file():
            raise ValueError(
                f"The run in '{self.path}' has no model yet, neither "
                "model.keras nor best.keras. Let it end first: the command "
                "that started it goes on where it stopped."
            )

    @property
    def method(self):
        """`"SAQ"`, `"QAT"`, `"FLOAT"`, or `None` where nothing says."""
        method = self.record.get("method")
        return method.upper() if isinstance(method, str) else None

    @property
    def facts(self):
        """What the page says about how it was made, or `None`."""
        names = ("command", "settings", "epochs_done", "seconds", "version")
        return {n: self.record.get(n) for n in names} if self.record else None

    def load(self, imports):
        """Loads the model."""
        self.model = files.load_model(self._model_path, imports)


def _name(runs):
    """Labels that differ: the method, or the path where that is not enough.

    'float' and 'file' mean something else on the page.
    """
    methods = [run.method for run in runs]
    for entry in runs:
        if entry.method and methods.count(entry.method) == 1:
            entry.label = entry.method
    labels = [entry.label for entry in runs]
    for i, entry in enumerate(runs, 1):
        if labels.count(entry.label) > 1 or entry.label in ("float", "file"):
            entry.label = str(entry.path)
            if entry.label in ("float", "file"):
                entry.label = f"./{entry.path}"
            if [run.path for run in runs].count(entry.path) > 1:
                entry.label = f"{entry.path} ({i})"


def _read_record(path):
    try:
        record = parse_json(path.read_bytes())
        if not isinstance(record, dict):
            raise ValueError("it is no table")
        for name in ("settings", "test", "float_test"):
            if not isinstance(record.get(name) or {}, dict):
                raise ValueError(f"its '{name}' is no table")
        return record
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{path}' is not the record of a run: {error}. Give the folder "
            "that `keras-saq train` made."
        ) from error


def _read_history(path):
    """Dict of columns; empty where no epoch is done."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        names = list(rows[0]) if rows else []
        if rows and "epoch" not in names:
            raise ValueError(f"it has no column 'epoch', but {names}")
        columns = {n: [_value(row[n]) for row in rows] for n in names}
        if any(not isinstance(e, float) for e in columns.get("epoch", ())):
            raise ValueError("an epoch has no number")
        return columns
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(
            f"'{path}' is not the history of a run: {error}"
        ) from error


def _value(text):
    """A number; `None` where nothing was measured."""
    return None if text in ("", "NA", None) else float(text)


def _metrics(runs):
    """What the runs recorded on their test data."""
    found = {}
    if runs[0].record.get("float_test"):
        found["float"] = runs[0].record["float_test"]
    for entry in runs:
        if entry.record.get("test"):
            found[entry.label] = entry.record["test"]
    return found


def _data(args, main):
    """`((x, y), loss, name)`, or three `None` without `--data`."""
    if args.data is None:
        return None, None, None
    from keras_saq.cli import losses
    from keras_saq.data import open_source

    preprocess = _preprocessing(args, main)
    kind = _loss_kind(main)
    source = open_source(args.data, args.data_dir)
    split = args.split or source.test_split or source.train_split
    samples = data_flags.load(source, split, args, main.model)
    samples = samples.choose(args.samples)
    loss = losses.choose(main.model, samples, kind).loss
    name = f"{source.name}, {split}"
    return (preprocess(samples.x[:]), samples.y), loss, name


def _preprocessing(args, main):
    """That of the flags, else that of the run."""
    settings = main.record.get("settings") or {}
    for name, default in (("scale", 1.0), ("mean", [0.0]), ("std", [1.0])):
        if getattr(args, name) is None:
            value = settings.get(name, default)
            setattr(args, name, value if name == "scale" else tuple(value))
    if args.image_size is None and settings.get("image_size") is not None:
        args.image_size = _size(settings["image_size"], main)
    try:
        return data_flags.preprocessing(args)
    except TypeError as error:
        raise ValueError(
            f"'{main.path / 'run.json'}' does not say in numbers how its "
            "inputs were scaled. Give `--scale`, `--mean` and `--std`."
        ) from error


def _size(value, main):
    """Height and width of the run's images."""
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(type(v) is int and v > 0 for v in value)
    ):
        return tuple(value)
    raise ValueError(
        f"'{main.path / 'run.json'}' does not say the size of its images as "
        f"height and width, but as {value!r}. Give `--image-size`."
    )


def _loss_kind(main):
    """What the run's `--loss` was."""
    from keras_saq.cli import losses

    settings = main.record.get("settings") or {}
    kind = settings.get("loss", losses.LOSSES[0])
    if kind not in losses.LOSSES:
        raise ValueError(
            f"'{main.path / 'run.json'}' has the loss {kind!r}. Expected one "
            f"of: {', '.join(losses.LOSSES)}."
        )
    return kind
