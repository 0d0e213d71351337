"""Pictures: written whole, whatever their labels say; a clear word where matplotlib is missing."""

import sys

import numpy as np
import pytest

from modernbert.errors import InputError, ModernBertError
from modernbert.plots import similarity_heatmap


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
