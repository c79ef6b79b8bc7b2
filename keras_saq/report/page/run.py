"""How the model was made: settings and command of the run."""

import shlex

from keras_saq.report.page import numbers
from keras_saq.report.page.markup import details
from keras_saq.report.page.markup import join
from keras_saq.report.page.markup import paragraph
from keras_saq.report.page.markup import table
from keras_saq.report.page.markup import tag

TITLE = "How it was made"


def render(report):
    """The section, or `None` where no run is known."""
    found = report.get("run")
    if not found:
        return None
    parts = []
    if found.get("command"):
        command = found["command"]
        if not isinstance(command, str):
            command = shlex.join(map(str, command))
        parts.append(paragraph("Command: ", tag("code", command)))
    facts = []
    if found.get("epochs_done") is not None:
        facts.append(numbers.plural(found["epochs_done"], "epoch"))
    if found.get("seconds"):
        facts.append(f"{found['seconds']:,.0f} seconds")
    if found.get("version"):
        facts.append(f"keras_saq {found['version']}")
    if facts:
        parts.append(paragraph(", ".join(facts), "."))
    if found.get("settings"):
        settings = found["settings"]
        parts.append(
            details(
                f"Table of all {len(settings)} settings",
                table(
                    "Settings",
                    ("name", "value"),
                    [(name, _text(value)) for name, value in settings.items()],
                    num_text=2,
                ),
            )
        )
    return join(parts) or None


def _text(value):
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
