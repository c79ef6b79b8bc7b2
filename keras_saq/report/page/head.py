"""The head: name, accuracy, size and proof at one glance."""

from keras_saq.report.page import numbers
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import tag


def render(report):
    """The head of the page."""
    model = report["model"]
    return tag(
        "header",
        tag("p", "keras_saq report", class_="soft"),
        tag("h1", report["title"]),
        paragraph(_sentence(report)),
        tag(
            "div",
            _accuracy(report),
            _size(report, model),
            _bits(model),
            _proof(report),
            class_="cards",
        ),
    )


def _sentence(report):
    model = report["model"]
    parameters = numbers.plural(model["parameters"], "parameter")
    text = f"A {model['type']} model with {parameters}"
    share = model["quantized_weight_share"]
    if not share:
        return f"{text}. None of its weights are quantized."
    quantized = f"{numbers.percent(share, 1)} of its weights are quantized"
    kept = len(model["stays_in_float"])
    if not kept:
        text = f"{text}; {quantized}, and no layer was left in float."
    else:
        places = "layer stays" if kept == 1 else "layers or operations stay"
        text = f"{text}; {quantized}. {kept} {places} in float."
    islands = report.get("file", {}).get("islands")
    if islands:
        places = numbers.plural(len(islands), "place")
        text += f" The file computes in float at {places}."
    return text


def _card(title, *content):
    return tag("section", tag("h3", title), *content, class_="card")


def _accuracy(report):
    rows = accuracy_rows(report)
    if not rows:
        return _card(
            "Accuracy",
            tag("p", "not measured", class_="big"),
            paragraph("Neither data nor recorded metrics were given."),
        )
    sources = list(dict.fromkeys(source for *_, source in rows))
    is_one = len(sources) == 1
    entries = []
    for name, value, source in rows:
        entries.append(tag("dt", name))
        note = None if is_one else tag("small", source)
        entries.append(tag("dd", value, note))
    return _card(
        "Accuracy",
        tag("dl", *entries),
        paragraph(f"{sources[0]}.") if is_one else None,
    )


def accuracy_rows(report):
    """`(name, value, where it was measured)` of the float model, ours, file.

    What was measured on the data of the report goes before what a run
    recorded, so that model and file are compared on the same samples.
    """
    measured = report.get("accuracy")
    recorded = report.get("metrics", {})
    labels = {"float": "float", report["label"]: "quantized", "file": "file"}
    if not report["model"]["quantized_weight_share"]:
        labels[report["label"]] = report["label"]
    rows = []
    for label, name in labels.items():
        if measured and label in measured["by_model"]:
            value = numbers.percent(measured["by_model"][label])
            source = f"Top-1, {numbers.samples(report, measured['samples'])}"
            rows.append((name, value, source))
        elif recorded.get(label):
            key = _main_metric(recorded[label])
            value = numbers.metric(key, recorded[label][key])
            rows.append((name, value, f"{key.capitalize()}, as recorded"))
    return rows


def _main_metric(values):
    names = [n for n in values if n != "loss"] or list(values)
    return next((n for n in names if "accuracy" in n), names[0])


def _size(report, model):
    file = report.get("file")
    size = file["file_bytes"] if file else model["stored_bytes"]
    float_bytes = model["float_bytes"] if file else model["float_stored_bytes"]
    title = "Size of the file" if file else "Size of the weights, estimated"
    ratio = float_bytes / size if size else None
    what = "parameters" if file else "weights and biases"
    note = f"{numbers.count(float_bytes)} bytes as float32 {what}"
    if ratio:
        note += f": {ratio:.2f} times as much"
    if not file:
        note += ". Codes, scales and biases as a LiteRT file stores them"
    return _card(
        title,
        tag("p", f"{numbers.count(size)} bytes", class_="big"),
        paragraph(f"{note}."),
    )


def _bits(model):
    mean = model["mean_weight_bits"]
    parts = ", ".join(
        f"{numbers.percent(count / sum(model['weights_by_bits'].values()), 1)} "
        + ("in float" if bits == "32" else f"with {bits} bits")
        for bits, count in model["weights_by_bits"].items()
    )
    divisor, prefix = numbers.unit_for([model["bops"]])
    return _card(
        "Bits per weight, on average",
        tag("p", numbers.short(mean, 3), class_="big"),
        paragraph(f"{parts}." if parts else "No layer has weights."),
        paragraph(
            f"{model['bops'] / divisor:.3g} {prefix} bit operations per "
            "inference; the float model needs "
            f"{_times(model['float_bops'], model['bops'])}."
        ),
    )


def _times(a, b):
    return f"{a / b:.3g} times as many" if b else "as many"


def _proof(report):
    parity = report.get("parity")
    if parity is None:
        reason = "No file was given."
        if report.get("file"):
            reason = "A file was given, but no data to run it on."
        return _card(
            "Does the file compute this model?",
            tag("p", "not checked", class_="big"),
            paragraph(reason),
        )
    if parity["reference_exact"]:
        verdict, style = "✓ Yes, exactly", "big ok"
    elif parity["within_bounds"]:
        verdict, style = "✓ Yes, within bounds", "big ok"
    else:
        verdict, style = "✗ No", "big bad"
    return _card(
        "Does the file compute this model?",
        tag("p", verdict, class_=style),
        paragraph(proof_sentence(parity)),
        paragraph(
            join(
                [
                    "Same top-1 as ",
                    tag("code", "predict"),
                    f": {numbers.percent(parity['top1_agreement'])}; largest "
                    f"difference {numbers.steps(parity['max_lsb'])}.",
                ]
            )
        ),
    )


def proof_sentence(parity):
    """What the comparison with the reference says."""
    amount = (
        f"{parity['num_outputs']:,} outputs of "
        f"{numbers.plural(parity['num_samples'], 'sample')}"
    )
    if parity["reference_exact"]:
        return f"Equal to the integer reference on all {amount}."
    difference = numbers.steps(parity["reference_max_lsb"])
    if parity["within_bounds"]:
        return (
            f"Every operator is within its stated bound; over {amount} the "
            f"file is up to {difference} from the integer reference."
        )
    first = parity.get("first_deviation")
    where = f" First layer that deviates: {first}." if first else ""
    return (
        f"Over {amount} the file is up to {difference} from the integer "
        f"reference.{where}"
    )
