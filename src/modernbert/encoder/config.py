"""Parts: frozen values that describe a piece of a model, build it, and can be written as JSON.

A part is a frozen dataclass with a `kind`, the name it has in a saved model, and a `build` method that gives
its module. A part may hold other parts. There is no registry: the kinds that belong to the package are one
literal tuple (`presets.PARTS`), and a model that holds a user's own is read with `load(folder,
parts=[MyBlockConfig])`. JSON carries data only, never code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar, cast

from modernbert.errors import ConfigError


class Part:
    """What every part's dataclass derives from: `kind` is its name in a saved model."""

    __slots__ = ()
    kind: ClassVar[str]


def to_json(part: Part) -> dict[str, Any]:
    """The part as JSON-ready data: its kind and every field, parts inside it likewise.

    `from_json` gives an equal part back, so a value that JSON would bring back as another is a ConfigError.
    """
    assert is_dataclass(part), f"{type(part).__name__} must be a dataclass"
    return {"kind": part.kind} | {
        field.name: _value_to_json(getattr(part, field.name), f"{type(part).__name__}.{field.name}")
        for field in fields(part)
    }


def from_json(data: Mapping[str, Any], parts: Iterable[type[Part]]) -> Part:
    """Build the part that `data` describes. Every `kind` must belong to one of `parts`; unknown keys are
    errors, and so are two parts of one kind.
    """
    return _part_from_json(data, parts_by_kind(parts))


def parts_by_kind(parts: Iterable[type[Part]]) -> dict[str, type[Part]]:
    """The classes by their `kind`; ConfigError for what is no class of a part, and for two of one kind."""
    kinds: dict[str, type[Part]] = {}
    for part in parts:
        if not _is_part_class(part):
            raise ConfigError(f"parts are dataclasses that derive from Part and have a kind, found {part!r}")
        if kinds.setdefault(part.kind, part) is not part:
            raise ConfigError(
                f"two parts are of kind {part.kind!r}: {_class_name(kinds[part.kind])} and "
                f"{_class_name(part)}; give yours another kind"
            )
    return kinds


def parts_in(value: Any) -> Iterator[Part]:
    """The parts that a value is or holds, at any depth."""
    if isinstance(value, Part):
        yield value
        assert is_dataclass(value), f"{type(value).__name__} must be a dataclass"
        for field in fields(value):
            yield from parts_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from parts_in(tuple(cast(Mapping[Any, Any], value).values()))
    elif isinstance(value, tuple | list):
        for item in cast("tuple[Any, ...]", value):
            yield from parts_in(item)


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


def require_at_least(part: Part, least: float, *names: str) -> None:
    """Raise ConfigError unless each named field is a number of at least `least`."""
    for name in names:
        value = getattr(part, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise ConfigError(
                f"{type(part).__name__}.{name} must be a number of at least {least:g}, found {value!r}"
            )


def _value_to_json(value: Any, name: str) -> Any:
    if isinstance(value, Part):
        return to_json(value)
    if isinstance(value, tuple):
        return [_value_to_json(item, name) for item in cast("tuple[Any, ...]", value)]
    if isinstance(value, Mapping):
        return _mapping_to_json(cast(Mapping[Any, Any], value), name)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    hint = "; write it as a tuple" if isinstance(value, list) else ""
    raise ConfigError(
        f"{name} holds {value!r}, which a saved model cannot bring back: a field is text, a number, true or "
        f"false, None, a part, or a tuple or mapping of these{hint}"
    )


def _mapping_to_json(mapping: Mapping[Any, Any], name: str) -> dict[str, Any]:
    for key in mapping:
        if not isinstance(key, str) or key == "kind":
            raise ConfigError(
                f"{name} has the key {key!r}, which a saved model cannot bring back: keys are text, and "
                "'kind' is a part's"
            )
    return {key: _value_to_json(item, name) for key, item in mapping.items()}


def _is_part_class(part: object) -> bool:
    return (
        isinstance(part, type)
        and issubclass(part, Part)
        and is_dataclass(part)
        and isinstance(getattr(part, "kind", None), str)
    )


def _class_name(part: type[Part]) -> str:
    return f"{part.__module__}.{part.__qualname__}"


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
        if "kind" in value:
            return _part_from_json(value, kinds)
        return {name: _value_from_json(item, kinds) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_value_from_json(item, kinds) for item in value)
    return value
