"""Pictures: written whole, whatever their labels say; a clear word where matplotlib is missing."""

import sys

import numpy as np
import pytest

from modernbert import plots
from modernbert.errors import InputError, ModernBertError
from modernbert.plots import Panel, curves, similarity_heatmap


def test_a_heat_map_is_written(tmp_path):
    path = tmp_path / "map.png"
    labels = ["costs $5 or $6", "a long label that must be wrapped over several lines to be legible " * 3]
    similarity_heatmap(np.array([[1.0, -0.2], [0.5, 0.9]]), labels, labels, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_grid_too_large_for_labels_is_drawn_without(tmp_path):
    labels = [f"text {i}" for i in range(300)]
    similarity_heatmap(np.eye(300), labels, labels, tmp_path / "map.png")
    assert 10_000 < (tmp_path / "map.png").stat().st_size < 1_000_000


def test_labels_must_fit_the_matrix(tmp_path):
    with pytest.raises(InputError, match="each row and column needs a label"):
        similarity_heatmap(np.ones((2, 3)), ["a", "b"], ["a", "b"], tmp_path / "map.png")
    with pytest.raises(InputError, match="each row and column needs a label"):
        similarity_heatmap(np.ones((0, 0)), [], [], tmp_path / "map.png")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModernBertError, match=r'pip install "modernbert\[plots\]"'):
        similarity_heatmap(np.ones((1, 1)), ["a"], ["a"], tmp_path / "map.png")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw panels, and look at the axes of the figure that is saved."""

    def draw(*panels):
        figures = []
        monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
        curves(panels, tmp_path / "x.png", title="t", x_label="tokens")
        figures[0].canvas.draw()
        return figures[0].axes

    return draw


def names_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_lines_that_lie_on_each_other_are_one_with_both_names(drawn):
    same = [(1, 0.5), (2, 0.6)]
    (axes,) = drawn(
        Panel(title="a", lines={"mrr@10": same, "recall": [(1, 1.0)], "map": list(same), "b": []})
    )
    assert names_of(axes) == ["mrr@10, map", "recall"]


def test_names_of_many_lines_stand_beside_them(drawn):
    (axes,) = drawn(Panel(title="a", lines={name: [(1, i), (9, i)] for i, name in enumerate("abcdef")}))
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_panels_have_one_x_axis(drawn):
    first, second = drawn(
        Panel(title="a", lines={"b": [(0, 1.0), (10, 2.0)]}),
        Panel(title="a", lines={"b": [(5, 1.0), (7, 2.0)]}),
    )
    assert first.get_xlim() == second.get_xlim()


@pytest.mark.parametrize(
    ("values", "is_logarithmic", "labels"),
    [
        ((0.0, 1.6e-4), False, {"0", "2e-5", "1e-4"}),
        ((0.2, 0.7), False, {"0.2", "0.3"}),
        ((0.0, 40_000.0), False, {"0", "10k"}),
        ((0.3, 4.0), True, {"0.5", "1", "2"}),
        ((1e-4, 4.0), True, {"1e-4", "0.1", "1"}),
        ((2.5, 4.5), True, {"3", "4"}),
    ],
)
def test_axes_have_short_numbers(drawn, values, is_logarithmic, labels):
    (axes,) = drawn(Panel(title="a", lines={"b": [*enumerate(values)]}, is_logarithmic=is_logarithmic))
    shown = {text.get_text() for text in axes.get_yticklabels()}
    assert labels <= shown
    assert all("$" not in text and "e-0" not in text for text in shown)
    assert not any(text.get_text() for text in axes.get_yticklabels(minor=True))
