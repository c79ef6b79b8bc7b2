"""The page of a report: sound HTML, made of the JSON's numbers alone."""

import html.parser
import json
import re
import sys

import keras
import numpy as np
import pytest

import keras_saq
from keras_saq.report import write_report
from keras_saq.report.evidence.layers import describe
from keras_saq.report.evidence.training import by_run
from keras_saq.report.page import numbers
from keras_saq.report.page import render
from keras_saq.report.page import run as page_run
from tests import networks

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
_VOID = ("meta", "wbr")
# Elements that end a paragraph, for a browser.
_BLOCKS = ("details", "div", "figure", "p", "section", "table", "ul")


class Page(html.parser.HTMLParser):
    """Reads a page; fails where it is not well-formed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_starttag(self, name, attributes):
        assert "p" not in self.open or name not in _BLOCKS, name
        names = [key for key, _ in attributes]
        assert len(names) == len(set(names))
        self.handle_startendtag(name, attributes)
        if name not in _VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def sections(self):
        return [a["id"] for a in self.all("section") if "id" in a]


def read(path):
    """`(Page, numbers)` of a report; what every page must be is checked."""
    text = path.read_text(encoding="utf-8")
    report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    # Every number on the page comes from the JSON: it is made of it alone.
    assert render(report) == text
    page = Page(text)
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in page.all("a")]
    assert links == [f"#{name}" for name in page.sections]
    # Nothing from elsewhere, and nothing that runs.
    assert not page.all("script") and not page.all("link")
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "onclick"} & set(attributes)
    assert not re.search(r"https?:|url\(|@import|javascript:", text)
    for picture in page.all("svg"):
        assert picture["role"] == "img" and picture["aria-label"]
    assert len(page.all("caption")) == len(page.all("table"))
    numbers = re.findall(r"nan|inf\b", " ".join(page.text), re.IGNORECASE)
    assert not numbers
    return page, report


def quantized(policy="w4a8"):
    x, _ = networks.images(16)
    return keras_saq.quantize_model(
        networks.sequential_network(), policy, calibration=x
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page with everything, and what it was made of."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("full")
    x, y = networks.images(32)
    float_model = networks.compile_model(networks.sequential_network())
    search = keras_saq.PolicySearch(
        float_model, (x, y), "sensitivity", verbose=0
    ).fit(keras_saq.Budget(bops="w4a4"))
    policy = search.policy()
    front = search.front(
        [keras_saq.Budget(bops=b) for b in ("w4a4", "w6a6")], batch_size=32
    )
    q = keras_saq.quantize_model(float_model, policy, calibration=x)
    saq = networks.compile_model(keras_saq.SAQModel(q, rho=0.1))
    monitor = keras_saq.callbacks.QuantizationMonitor()
    history = saq.fit(
        x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=[monitor]
    )
    qat = quantized("w2a8")
    exported = keras_saq.export_litert(saq, folder / "m.tflite")
    inputs = {
        "history": {"SAQ": history, "QAT": {"loss": [2.0, float("nan")]}},
        "data": (x, y),
        "data_name": "bright rows & columns",
        "compare": {"QAT": qat},
        "float_model": float_model,
        "metrics": {"SAQ": {"accuracy": 0.5}},
        "file": str(folder / "m.tflite"),
        "policy": policy,
        "front": front,
        "run": {"command": ["train", "<m>"], "settings": {"a": [1, None]}},
        "title": '<b>bold</b> & "sharp"',
        "points": 3,
        "loss": LOSS,
        "verbose": 0,
    }
    write_report(folder / "full.html", saq, **inputs)
    return folder, saq, inputs, exported


def test_a_page_with_everything(full):
    folder, saq, inputs, exported = full
    page, report = read(folder / "full.html")
    assert page.sections == [
        *("layers", "training", "weights", "sharpness"),
        *("search", "file", "run"),
    ]
    text = "".join(page.text)
    # What users wrote is text, not markup.
    assert inputs["title"] in text and not page.all("b")
    assert "train '<m>'" in text and "bright rows & columns" in text
    # The numbers are those of the functions that the report stands on.
    model = report["model"]
    expected = keras_saq.summary(saq, print_fn=False)
    assert model["bops"] == expected.bops
    assert model["stored_bytes"] == expected.stored_bytes
    assert f"{exported.file_bytes:,} bytes" in text
    parity = keras_saq.verify_litert(inputs["file"], saq, inputs["data"][0])
    assert report["parity"]["max_lsb"] == parity.max_lsb
    assert report["parity"]["exact"] == parity.exact
    assert report["parity"]["layers"] and parity.reference_exact
    assert "✓ Yes, exactly" in text
    x, y = inputs["data"]
    accuracy = np.mean(saq.model.predict(x, verbose=0).argmax(-1) == y)
    assert report["accuracy"]["by_model"]["SAQ"] == accuracy
    assert set(report["accuracy"]["by_model"]) == {
        *("float", "SAQ", "QAT", "file")
    }
    sharpness = report["sharpness"]["by_model"]
    measured = keras_saq.measure_sharpness(
        saq, inputs["data"], eigenvalue=False, loss=LOSS
    )
    assert sharpness["SAQ"]["rise"] == pytest.approx(measured.rise, rel=1e-4)
    losses = report["sharpness"]["landscape"]["losses"]
    # The middle of the map is the model itself.
    assert losses["QAT"][1][1] == pytest.approx(sharpness["QAT"]["loss"])
    assert report["training"]["QAT"]["loss"] == [2.0, None]
    assert "code_flip_rate" in report["training"]["SAQ"]
    assert report["search"]["other_in_model"] == []
    assert len(report["search"]["front"]["points"]) == 2


def test_equal_inputs_give_equal_files(full):
    folder, saq, inputs, _ = full
    other = folder / "full2.html"
    inputs = {**inputs, "data": inputs["data"][0], "float_model": None}
    contents = []
    for _ in range(2):
        write_report(other, saq, **inputs)
        contents.append(
            (other.read_bytes(), other.with_suffix(".json").read_bytes())
        )
    assert contents[0] == contents[1]
    # Inputs without labels: parity alone.
    page, report = read(other)
    assert "sharpness" not in page.sections and "accuracy" not in report
    assert report["parity"]["reference_exact"] is True


@pytest.mark.parametrize("kind", ["quantized", "uncalibrated", "float"])
def test_only_a_model(kind, tmp_path):
    model = networks.sequential_network()
    if kind != "float":
        x, _ = networks.images(16)
        model = keras_saq.quantize_model(
            model, "w4a8", calibration=x if kind == "quantized" else None
        )
    returned = write_report(tmp_path / "r.html", model, verbose=0)
    page, report = read(tmp_path / "r.html")
    assert returned == report
    text = "".join(page.text)
    assert "not measured" in text and "not checked" in text
    if kind == "float":
        assert page.sections == ["layers"]
        assert "None of its weights are quantized" in text
        assert report["model"]["mean_weight_bits"] == 32
        # The same is counted in both.
        sizes = report["model"]["stored_bytes"]
        assert report["model"]["float_stored_bytes"] == sizes
        assert "bytes as float32 weights and biases: 1.00 times" in text
    else:
        assert page.sections == ["layers", "weights"]
    parameters = networks.sequential_network().count_params()
    assert report["model"]["parameters"] == parameters
    assert report["model"]["float_bytes"] == 4 * parameters


def test_histograms_count_every_weight_once(tmp_path):
    q = quantized(keras_saq.QuantizePolicy.preset("w2a8", first_last_bits=8))
    report = write_report(tmp_path / "r.html", q, verbose=0)
    layers = [q.layers[0], q.layers[4], q.layers[6]]
    assert [row["bits"] for row in report["weights"]] == [8, 2, 8]
    for row, layer in zip(report["weights"], layers):
        codes = layer.kernel_quantizer.codes(layer.kernel)
        assert sum(row["codes"]["counts"]) == row["size"] == codes.size
        assert row["zero_share"] == np.mean(codes == 0)
        scale = keras.ops.convert_to_numpy(layer.kernel_quantizer.scale)
        assert row["scale"]["max"] == pytest.approx(scale.max())
    counts = report["weights"][1]["codes"]["counts"]
    codes = layers[1].kernel_quantizer.codes(layers[1].kernel)
    assert counts == [int(np.sum(codes == c)) for c in (-1, 0, 1)]
    latent = report["weights"][1]["latent"]
    assert sum(latent["counts"]) == codes.size


def test_names_of_layers_are_text(tmp_path):
    layer = keras.layers.Dense(2)
    layer.name = 'a<img src="x">&amp;b'
    model = keras.Sequential([keras.Input((4,)), layer])
    write_report(tmp_path / "r.html", model, verbose=0)
    page, _ = read(tmp_path / "r.html")
    assert not page.all("img")
    assert layer.name in "".join(page.text)


def test_many_layers_with_long_paths(tmp_path):
    outer = keras.Sequential(
        [keras.Input((4,))]
        + [
            keras.layers.Dense(4, name=f"a_rather_long_name_of_a_layer_{i}")
            for i in range(60)
        ],
        name="the_name_of_the_model_around_them",
    )
    model = keras.Sequential([keras.Input((4,)), outer])
    q = keras_saq.quantize_model(model, "w4a8", calibration=np.eye(4))
    write_report(tmp_path / "r.html", q, verbose=0)
    page, report = read(tmp_path / "r.html")
    assert len(report["model"]["layers"]) == 60
    # Few plots are open, the others folded; numbers on axes stay apart.
    assert len(page.all("details")) == 3
    places = [
        float(re.fullmatch(r"left:([\d.]+)%", a["style"])[1])
        for a in page.all("span")
        if a.get("style", "").startswith("left")
    ]
    steps = np.diff(places)
    assert (steps[steps > 0] > 7).all()
    assert (tmp_path / "r.html").stat().st_size < 400_000


def test_layers_in_float_are_listed_with_the_reason(tmp_path):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="first")(inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(x))
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    with pytest.warns(UserWarning, match="stay"):
        q = keras_saq.quantize_model(model, "w4a8", calibration=x)
    file = tmp_path / "m.tflite"
    exported = keras_saq.export_litert(q, file, verify=x)
    write_report(tmp_path / "r.html", q, file=exported, verbose=0)
    page, report = read(tmp_path / "r.html")
    text = "".join(page.text)
    (kept,) = report["model"]["stays_in_float"]
    assert kept["path"] == "norm" and kept["reason"] in text
    assert dict(exported.islands)["norm"] in text
    # The comparison that the export made is shown.
    assert report["parity"]["num_samples"] == 16


def test_another_policy_is_told(full, tmp_path):
    policy = full[2]["policy"]
    write_report(tmp_path / "r.html", quantized("w8a8"), policy=policy)
    page, report = read(tmp_path / "r.html")
    assert report["search"]["other_in_model"]
    assert "not made with this policy" in "".join(page.text)


def test_sparse_columns_of_a_history():
    run = by_run({"loss": [4, 3, 2, 1], "flips": [0.5, 0.1]}, "a")["a"]
    assert run["flips"] == [None, 0.5, None, 0.1]
    with pytest.warns(UserWarning, match="'flips' of the history has 1 values"):
        run = by_run({"loss": [4, 3, 2, 1, 0], "flips": [0.5]}, "a")["a"]
    assert list(run) == ["epoch", "loss"]


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": []},
        {"loss": [float("nan")]},
        {"loss": [1.0]},
        {"loss": [1.0, float("inf"), 3.0], "val_accuracy": [1.0] * 3},
        {"loss": [1e-30, 2e20], "learning_rate": [0.0, 0.0]},
    ],
)
def test_odd_histories(history, tmp_path):
    model = networks.sequential_network()
    write_report(tmp_path / "r.html", model, history, verbose=0)
    page, _ = read(tmp_path / "r.html")
    has_curve = 1.0 in history.get("loss", []) or len(history) == 2
    assert ("training" in page.sections) == has_curve


@pytest.mark.parametrize(
    "command", ["train 'a b'", ["train", "a b"]], ids=["text", "list"]
)
def test_the_command_can_be_pasted(command):
    assert "train &#x27;a b&#x27;" in str(
        page_run.render({"run": {"command": command}})
    ).replace("&#39;", "&#x27;")


def test_the_float_size_counts_what_the_stored_size_does():
    inputs = keras.Input((5, 4))
    shared = keras.layers.Dense(4)
    x = shared(shared(inputs))
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(inputs, keras.layers.LSTM(3)(x))
    found = describe(model)
    assert found["float_stored_bytes"] == found["stored_bytes"] > 0


def test_a_learning_rate_is_no_share():
    names = ("learning_rate", "code_flip_rate", "val_accuracy", "loss")
    shares = [numbers.is_share(name) for name in names]
    assert shares == [False, True, True, False]


def test_a_model_without_weights(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    write_report(tmp_path / "r.html", model, verbose=0)
    assert read(tmp_path / "r.html")[0].sections == []


def _errors():
    x, y = networks.images(8)
    return {
        "must end in '.html'": {"path": "r.txt"},
        "does not exist": {"path": "missing/r.html"},
        "is a folder": {"path": "folder.html"},
        "another file of this name": {"path": "taken.html"},
        "`history` must be what": {"history": {"a": 1}},
        "`metrics` must be a dict": {"metrics": {"accuracy": 1}},
        "as many labels as inputs": {"data": (x, y[:3])},
        "`data` must be `\\(x, y\\)`": {"data": (x, y, y)},
        "has no loss yet": {"data": (x, y)},
        "`points` must be odd": {"points": 4},
        "'float' and 'file' are taken": {"label": "file"},
        "cannot be read": {"file": "no.tflite"},
        "is not a .tflite file": {"file": "broken.tflite"},
        "policy file cannot be read": {"policy": "no.json"},
        "was not found by a search": {"policy": "w4a8"},
        "written from another model": {"file": "other.tflite"},
    }


@pytest.mark.parametrize("message", _errors())
def test_errors_leave_no_file(message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "taken.json").write_text('{"my": "policy"}')
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    if "another model" in message:
        other = networks.residual_network()
        other = keras_saq.quantize_model(
            other, "w4a8", calibration=networks.images(8)[0]
        )
        keras_saq.export_litert(other, "other.tflite")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    arguments = {"path": "r.html", "verbose": 0, **_errors()[message]}
    with pytest.raises(ValueError, match=message):
        write_report(model=quantized(), **arguments)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_no_plotting_package_is_needed(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    write_report(tmp_path / "r.html", quantized(), {"loss": [2.0, 1.0]})
    assert read(tmp_path / "r.html")[0].sections[1] == "training"
