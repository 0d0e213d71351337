"""Parts: frozen values that describe a piece of a model, build it, and can be written as JSON.

A part is a frozen dataclass with a `kind`, the name it has in a saved model, and a `build` method that gives
its module. A part may hold other parts. There is no registry: the kinds that belong to the package are one
literal tuple (`presets.PARTS`), and a model that holds a user's own is read with `load(folder,
parts=[MyBlockConfig])`. JSON carries data only, never code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar

from modernbert.errors import ConfigError


class Part:
    """What every part's dataclass derives from: `kind` is its name in a saved model."""

    __slots__ = ()
    kind: ClassVar[str]


def to_json(part: Part) -> dict[str, Any]:
    """The part as JSON-ready data: its kind and every field, parts inside it likewise."""
    assert is_dataclass(part), f"{type(part).__name__} must be a dataclass"
    return {"kind": part.kind} | {
        field.name: _value_to_json(getattr(part, field.name)) for field in fields(part)
    }


def from_json(data: Mapping[str, Any], parts: Iterable[type[Part]]) -> Part:
    """Build the part that `data` describes. Every `kind` must belong to one of `parts`; unknown keys are
    errors.
    """
    return _part_from_json(data, {part.kind: part for part in parts})


def require_positive(part: Part, *names: str) -> None:
    """Raise ConfigError unless each named field is a whole number above zero."""
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{type(part).__name__}.{name} must be a whole number above 0, found {value!r}")


def require_probability(part: Part, *names: str) -> None:
    """Raise ConfigError unless each named field lies in [0, 1)."""
    for name in names:
        value = getattr(part, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise ConfigError(
                f"{type(part).__name__}.{name} must be a probability in [0, 1), found {value!r}"
            )


def _value_to_json(value: Any) -> Any:
    if isinstance(value, Part):
        return to_json(value)
    if isinstance(value, tuple | list):
        return [_value_to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _value_to_json(item) for key, item in value.items()}
    return value


def _part_from_json(data: Mapping[str, Any], kinds: Mapping[str, type[Part]]) -> Part:
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            f"unknown part {kind!r}; known are {', '.join(sorted(kinds))}. A part of your own is named when "
            "loading: modernbert.load(folder, parts=[YourPartConfig])"
        )
    part = kinds[kind]
    values = {name: _value_from_json(value, kinds) for name, value in data.items() if name != "kind"}
    known = {field.name for field in fields(part)}  # pyright: ignore[reportArgumentType]  # a Part is a dataclass
    if unknown := sorted(values.keys() - known):
        raise ConfigError(
            f"{part.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
        )
    if missing := sorted(_required(part) - values.keys()):
        raise ConfigError(
            f"{part.__name__} needs {', '.join(missing)}, which the configuration does not give"
        )
    try:
        return part(**values)
    except TypeError as error:  # a value of the wrong kind, such as a number for a list of blocks
        raise ConfigError(f"{part.__name__} cannot be made of {values}: {error}") from error


def _required(part: type[Part]) -> set[str]:
    return {
        field.name
        for field in fields(part)  # pyright: ignore[reportArgumentType]  # a Part is a dataclass
        if field.default is MISSING and field.default_factory is MISSING
    }


def _value_from_json(value: Any, kinds: Mapping[str, type[Part]]) -> Any:
    if isinstance(value, Mapping):
        return _part_from_json(value, kinds) if "kind" in value else value
    if isinstance(value, list):
        return tuple(_value_from_json(item, kinds) for item in value)
    return value
