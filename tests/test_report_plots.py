"""Pictures of reports: each is one PNG, whatever the labels say and however many there are."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from modernbert import report_plots
from modernbert.errors import InputError, ModernBertError
from modernbert.metrics import calibration, classification

NAMES = ["costs $5 or $6", "a label that is too long to stand in one line of a picture", "c"]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The folder, and the figures that were saved there."""
    figures = []

    def keep(figure, path, **how):
        figures.append(figure)
        original(figure, path, **how)

    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", keep)
    yield tmp_path, figures
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == len(figures)


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_confusion_of_few_classes_has_counts_and_shares(drawn):
    folder, figures = drawn
    counts = np.array([[1234, 0, 66], [0, 0, 0], [1, 2, 7]])
    report_plots.confusion_picture(counts, NAMES, folder / "few.png")
    assert texts_of(figures[0]) == ["1,234\n94.9%", "66\n5.1%", "1\n10.0%", "2\n20.0%", "7\n70.0%"]
    assert figures[0].axes[0].get_xlabel() == "given"
    assert figures[0].axes[0].get_ylabel() == "labelled"


def test_a_confusion_of_more_classes_has_counts_and_of_many_has_colours(drawn):
    folder, figures = drawn
    for num in (20, 41):
        report_plots.confusion_picture(
            np.eye(num, dtype=int) * 7, [f"class {i}" for i in range(num)], folder / f"{num}.png"
        )
    assert texts_of(figures[0]) == ["7"] * 20
    assert texts_of(figures[1]) == []
    assert figures[1].axes[0].get_xlabel() == "given, by the number of the class"


def test_the_numbers_are_read_on_their_colour(drawn):
    folder, figures = drawn
    report_plots.confusion_picture(np.array([[9, 1], [5, 5]]), ["a", "b"], folder / "two.png")
    inks = [text.get_color() for text in figures[0].axes[0].texts]
    assert inks == ["white", report_plots.INK, "white", "white"]


def test_bars_stand_in_order_and_many_leave_out_the_middle(drawn):
    folder, figures = drawn
    report_plots.class_bars({"worst": 0.1, "best": 0.9, "$mid$": 0.5}, folder / "few.png", what="F1")
    report_plots.class_bars({f"class {i}": i / 100 for i in range(100)}, folder / "many.png", what="F1")
    names = [[label.get_text() for label in figure.axes[0].get_yticklabels()] for figure in figures]
    assert names[0] == ["worst", "$mid$", "best"]
    assert (names[1][0], names[1][20], names[1][-1]) == ("class 0", "... 60 more ...", "class 99")


def test_reliability_has_both_lines_and_the_diagonal(drawn):
    folder, figures = drawn
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    points = calibration.reliability(np.array([0, 1, 1]), probabilities)
    report_plots.reliability_picture(points, points, folder / "reliability.png")
    lines = figures[0].axes[0].get_lines()
    assert len(lines) == 3
    assert lines[1].get_xydata().tolist() == [[0.6, 0.0], [0.8, 1.0], [0.9, 1.0]]


def test_the_area_under_precision_and_recall_is_the_average_precision(drawn):
    folder, figures = drawn
    numbers = np.random.default_rng(0)
    is_right = numbers.random(200) < 0.4
    scores = np.round(numbers.random(200) + is_right * 0.3, 2)
    curve = classification.precision_recall(is_right, scores)[:2]
    report_plots.precision_recall_picture({"$a$": curve}, folder / "curve.png")
    (line,) = figures[0].axes[0].get_lines()
    recall, precision = line.get_xydata().T
    assert line.get_drawstyle() == "steps-pre"
    assert np.diff(recall) @ precision[1:] == pytest.approx(
        classification.average_precision(is_right, scores)
    )


@pytest.mark.parametrize("num", [1, 3, 5000])
def test_values_are_drawn_on_equal_axes(drawn, num):
    folder, figures = drawn
    values = np.linspace(0, 5, num)
    report_plots.scatter_picture(values, values + 0.1, folder / "values.png")
    axes = figures[0].axes[0]
    assert axes.get_xlim() == axes.get_ylim()


def test_a_sweep_names_its_best_value(drawn):
    folder, figures = drawn
    lines = {"epochs=3": [(3e-5, 0.9), (1e-5, 0.8)], "epochs=5": [(1e-5, 0.7)]}
    report_plots.sweep_picture(lines, folder / "sweep.png", setting="lr", metric="f1")
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    assert texts_of(figures[0]) == ["0.9000 at 3e-05"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1e-05", "3e-05"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["epochs=3", "epochs=5"]


@pytest.mark.parametrize("points", [[], [(0.0, 0.5)]], ids=["no point", "a value of 0"])
def test_a_sweep_that_cannot_be_drawn_is_refused(tmp_path, points):
    with pytest.raises(InputError, match="a sweep of lr needs values above 0"):
        report_plots.sweep_picture({"": points}, tmp_path / "sweep.png", setting="lr", metric="f1")
    assert not list(tmp_path.iterdir())


def test_the_best_trial_is_dark(drawn):
    folder, figures = drawn
    report_plots.trials_picture({"lr=1e-05": 0.8, "lr=3e-05": 0.9}, folder / "trials.png", metric="f1")
    first, second = (bar.get_facecolor() for bar in figures[0].axes[0].patches)
    assert sum(second[:3]) < sum(first[:3])


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModernBertError, match=r'pip install "modernbert\[plots\]"'):
        report_plots.confusion_picture(np.eye(2, dtype=int), ["a", "b"], tmp_path / "x.png")
