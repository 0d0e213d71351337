"""Recipes: runs as Python functions that return data. Found by name here, or in a user's own file.

    def recipe() -> Recipe:                  # in my_recipe.py
        return replace(nano(), seed=7)

`modernbert pretrain my_recipe.py ...` calls the function named `recipe`.
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from modernbert.errors import ModernBertError, TrainingError
from modernbert.recipes.base import base, large
from modernbert.recipes.nano import nano
from modernbert.recipes.own_language import own_language
from modernbert.recipes.tiny import tiny
from modernbert.training.recipe import Recipe

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {"tiny": tiny, "nano": nano, "own_language": own_language, "base": base, "large": large}
)


def find(
    name: str, *, tokens: int | None = None, seed: int | None = None, start_from: str | None = None
) -> Recipe:
    """The recipe of that name, or the one that a file's function `recipe` returns, with these changes.

    `tokens` is the length of the whole run; `start_from` takes the place of the recipe's encoder. Raises
    TrainingError. A file is run: it is the user's own.
    """
    found = _called(name)
    if not isinstance(found, Recipe):
        raise TrainingError(f"the function of recipe {name!r} returns {type(found).__name__}, not a Recipe")
    if tokens is not None:
        found = found.scaled_to(tokens)
    if seed is not None:
        found = replace(found, seed=seed)
    return found if start_from is None else replace(found, start_from=start_from, encoder=None)


def _function(name: str) -> Callable[[], Recipe]:
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".py":
        raise TrainingError(
            f"unknown recipe {name!r}; there are: {', '.join(RECIPES)}, or name a Python file of your own"
        )
    if not path.exists():
        raise TrainingError(f"there is no file {path}; recipes that need none are: {', '.join(RECIPES)}")
    function: Any = _run(path, lambda: runpy.run_path(str(path))).get("recipe")
    if not callable(function):
        raise TrainingError(f"{path} has no function `recipe` that returns a modernbert.Recipe")
    return cast(Callable[[], Recipe], function)


def _called(name: str) -> Any:
    function = _function(name)
    return function() if name in RECIPES else _run(Path(name), function)


def _run(path: Path, call: Callable[[], Any]) -> Any:
    """What the user's code gives; where it fails, the error names its own last line, not ours."""
    try:
        return call()
    except ModernBertError:
        raise
    except Exception as error:
        lines = [each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1].lineno if lines else None)
        where = str(path) if line is None else f"{path}, line {line}"
        raise TrainingError(f"{where}: {type(error).__name__}: {error}") from error
