import keras_saq
from keras_saq.report.plots import plot_runs
from keras_saq.report.runs import Run
from keras_saq.report.runs import RunTable
from keras_saq.table import format_table
from tests import networks


def test_table():
    text = format_table(("name", "n"), [("a", "1"), ("long", "23")])
    assert text.splitlines() == [
        "name   n",
        "----  --",
        "a      1",
        "long  23",
    ]


def test_summary_prints_and_returns():
    q = keras_saq.quantize_model(networks.residual_network(), "w2a4")
    lines = []
    result = keras_saq.summary(q, print_fn=lines.append)
    (text,) = lines
    assert "depthwise_conv2d" in text and "total" in text
    row = next(r for r in result.rows if r.path == "depthwise_conv2d")
    assert (row.weight_bits, row.activation_bits) == (2, 4)
    assert result.bops == sum(r.bops for r in result.rows)
    # A SAQModel is summarised as the model inside.
    saq = keras_saq.SAQModel(q)
    assert keras_saq.summary(saq, print_fn=False).bops == result.bops


def test_nested_layers_have_paths():
    q = keras_saq.quantize_model(networks.nested_network(), "w4a8")
    paths = [r.path for r in keras_saq.summary(q, print_fn=False).rows]
    assert paths == ["backbone/conv2d", "backbone/conv2d_1", "dense"]


def runs():
    return [
        Run("float", "float", 0, 0.99),
        *(
            Run("w4a8", "saq", seed, 0.98, 0.97 + seed / 100, 1000, 1.0, 0.9)
            for seed in range(3)
        ),
    ]


def test_run_table_means_and_spreads():
    table = RunTable(runs())
    float_row, row = table.rows()
    assert float_row[:4] == ("float", "99.00%", "-", "-")
    assert row[0] == "w4a8 SAQ"
    assert row[2] == "98.00 ± 1.00 %"
    assert row[3] == "1,000"
    assert len(table.as_dicts()) == 4


def test_plot(tmp_path):
    plot_runs(RunTable(runs()), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
