"""The small models that ship with the package: each a model folder here, with its card."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The bundled models; none until one is pretrained."""
    return tuple(sorted(folder.name for folder in _HERE.iterdir() if (folder / "config.json").exists()))


def path(name: str) -> Path:
    """The folder of a bundled model."""
    return _HERE / name
