"""Writes docs/reference from the docstrings and signatures of the public names: `make docs`.

    python scripts/reference.py            write the pages
    python scripts/reference.py --check    exit 1 and name the pages that are not up to date

Every name of `modernbert.__all__` stands on one page; a test holds that, and that the pages are up to date.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the docstrings: change those, then run `make docs`. -->\n"
LINE_LENGTH = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page: which names of which module stand on it, in order."""

    name: str
    title: str
    about: str
    module: str
    members: tuple[str, ...]


PAGES = (
    Page(
        name="models",
        title="Models",
        about="Load a model and ask it.",
        module="modernbert",
        members=("load", "new", "Model"),
    ),
    Page(
        name="streams",
        title="Streams",
        about="What `Model.stream` gives: the methods of a model for texts in any number.",
        module="modernbert.inference.stream",
        members=("Stream",),
    ),
    Page(
        name="results",
        title="Results",
        about="What the methods of `Model` give back: frozen values with plain fields.",
        module="modernbert.inference.results",
        members=("Fill", "Classification", "Entity", "Answer", "Ranked", "Choice"),
    ),
    Page(
        name="batches",
        title="Tokens, batches and attention",
        about="From texts to packs of tokens, and the one entry to attention.",
        module="modernbert",
        members=("Tokenizer", "PackedBatch", "attend"),
    ),
    Page(
        name="parts",
        title="Parts of an encoder",
        about="Frozen values that describe an encoder and build it.",
        module="modernbert",
        members=(
            "Part",
            "EncoderConfig",
            "Encoder",
            "EmbeddingConfig",
            "LearnedPositionsConfig",
            "PreNormConfig",
            "PostNormConfig",
            "ParallelConfig",
            "AttentionConfig",
            "RotaryConfig",
            "GluConfig",
            "MlpConfig",
            "LayerNormConfig",
            "RmsNormConfig",
            "InitConfig",
            "PRESETS",
        ),
    ),
    Page(
        name="heads",
        title="Heads",
        about="What stands on an encoder, and the two together.",
        module="modernbert",
        members=(
            "ModelConfig",
            "EmbedHeadConfig",
            "TokenEmbedHeadConfig",
            "DenseConfig",
            "MlmHeadConfig",
            "ClassifyHeadConfig",
            "ChoiceHeadConfig",
            "TagHeadConfig",
            "SpanHeadConfig",
            "TransformConfig",
        ),
    ),
    Page(
        name="folders",
        title="Model folders",
        about="Reading and writing a folder without asking the model anything.",
        module="modernbert.pretrained.folder",
        members=("Pretrained", "read_folder", "write_folder", "describe_layout"),
    ),
    Page(
        name="conversion",
        title="Conversion",
        about="Between our folders, those of transformers, and checkpoints of the research code.",
        module="modernbert.pretrained.convert",
        members=("convert", "config_named"),
    ),
    Page(
        name="corpus",
        title="Text to learn from",
        about="From files of text to tokens on disk, and the order in which they are read.",
        module="modernbert",
        members=("train_tokenizer", "write_shards", "Shards", "Mixture"),
    ),
    Page(
        name="training",
        title="Pretraining",
        about="A run as data, and the function that trains by it.",
        module="modernbert",
        members=("pretrain", "Recipe", "Phase", "ProbeConfig"),
    ),
    Page(
        name="finetuning",
        title="Fine-tuning",
        about="A task, the rows of a file, and how to learn from them.",
        module="modernbert",
        members=(
            "finetune",
            "Sources",
            "Finetuning",
            "Sweep",
            "Classify",
            "Tag",
            "FindAnswers",
            "Embed",
            "Rerank",
            "LateInteraction",
            "Mining",
            "mine_negatives",
            "Distill",
        ),
    ),
    Page(
        name="optimizers",
        title="Optimisers",
        about="Frozen values that build an optimiser; a recipe holds one.",
        module="modernbert.training.optim",
        members=("StableAdamWConfig", "AdamWConfig", "AdoptConfig", "MuonConfig"),
    ),
    Page(
        name="schedules",
        title="Schedules",
        about="What changes as a run goes on: learning rates, rows of a step, mask rates. All count tokens.",
        module="modernbert.training.schedule",
        members=(
            "Constant",
            "WarmupStableDecay",
            "OneMinusSqrt",
            "Cosine",
            "BatchWarmup",
            "ConstantRate",
            "StepRates",
            "LinearRate",
        ),
    ),
    Page(
        name="surgery",
        title="Surgery",
        about="Models made of other models.",
        module="modernbert.pretrained.surgery",
        members=("average_models", "resize_vocabulary"),
    ),
    Page(
        name="tiling",
        title="Tiling",
        about="A larger model that begins with what a smaller one has learned.",
        module="modernbert.pretrained.tiling",
        members=("tile_model", "Tiling"),
    ),
    Page(
        name="errors",
        title="Errors",
        about="All that the package raises on purpose; `ModernBertError` catches them all.",
        module="modernbert.errors",
        members=(
            "ModernBertError",
            "ConfigError",
            "FolderError",
            "WeightsError",
            "TokenizerError",
            "InputError",
            "TooLongError",
            "CorpusError",
            "TrainingError",
            "BackendError",
            "TaskError",
        ),
    ),
)


def main() -> None:
    """Write the pages, or look whether they are up to date."""
    if sys.argv[1:] == ["--check"]:
        stale = [path for path, text in pages() if not path.exists() or path.read_text() != text]
        sys.exit(f"not up to date, run `make docs`: {', '.join(path.name for path in stale)}" if stale else 0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in pages():
        path.write_text(text)
        print(path.relative_to(FOLDER.parent.parent))


def pages() -> Iterator[tuple[Path, str]]:
    """Each page with its text, the table of contents first."""
    rows = [
        f"- [{page.title}]({page.name}.md): {', '.join(f'`{m}`' for m in page.members)}" for page in PAGES
    ]
    yield FOLDER / "README.md", "\n".join([NOTE, "# Reference\n", *rows]) + "\n"
    for page in PAGES:
        module = importlib.import_module(page.module)
        sections = [_section(name, getattr(module, name), page.module) for name in page.members]
        head = f"{NOTE}\n# {page.title}\n\n{page.about}\n"
        yield FOLDER / f"{page.name}.md", "\n".join([head, *sections])


def _section(name: str, value: Any, module: str) -> str:
    lines = [f"## {name}\n", f"`from {module} import {name}`\n"]
    if name.isupper():
        return "\n".join([*lines, _table_of_presets(value)])
    lines += [f"```python\n{_signature(name, value)}\n```\n", _doc(value)]
    if inspect.isclass(value):
        lines += [_member(member, found) for member, found in _members(value)]
    return "\n".join(lines)


def _member(name: str, value: Any) -> str:
    if isinstance(value, property):
        signature = f"{name}: {_return_of(value.fget)}"
    else:
        signature = _signature(name, inspect.unwrap(getattr(value, "__func__", value)))
    return f"### {name}\n\n```python\n{signature}\n```\n\n{_doc(value)}"


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of the class itself; `build` is alike in most parts."""
    for name, value in vars(cls).items():
        is_member = isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)
        is_said = name == "build" and cls.__name__ not in (
            "EncoderConfig",
            "ModelConfig",
        )  # the same in every part
        if is_member and not name.startswith("_") and not is_said and inspect.getdoc(value):
            yield name, value


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value) and is_dataclass(value):
        return _call(f"class {name}", ["*", *_fields(value)] if fields(value) else [], "")
    if inspect.isclass(value):
        own = value.__init__ is not object.__init__ and not issubclass(value, BaseException)
        parameters = _parameters(value.__init__)[1:] if own else []
        bases = [base.__name__ for base in value.__bases__ if issubclass(base, BaseException)]
        return f"class {name}({', '.join(bases)})" if bases else _call(f"class {name}", parameters, "")
    is_method = next(iter(inspect.signature(value).parameters), "") in ("self", "cls")
    return _call(f"def {name}", _parameters(value)[is_method:], f" -> {_return_of(value)}")


def _call(start: str, parameters: list[str], end: str) -> str:
    line = f"{start}({', '.join(parameters)}){end}"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"{start}(", *(f"    {parameter}," for parameter in parameters), f"){end}"])


def _parameters(function: Any) -> list[str]:
    shown: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        note = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {_value(parameter.default)}"
        shown.append(f"{parameter.name}{note}{default}")
    return shown


def _fields(cls: Any) -> list[str]:
    return [f"{field.name}: {_type(field.type)}{_default(field)}" for field in fields(cls)]


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return f" = {_value(field.default)}"
    return (
        ""
        if field.default_factory is MISSING
        else f" = {getattr(field.default_factory, '__name__', '...')}()"
    )


def _value(value: Any) -> str:
    """As a person would write it: double quotes, and of parts only what differs from their defaults."""
    if isinstance(value, str):
        return f'"{value}"'
    if not is_dataclass(value):
        return repr(value)
    given = [f for f in fields(value) if f.default is MISSING or getattr(value, f.name) != f.default]
    shown = ", ".join(f"{field.name}={_value(getattr(value, field.name))}" for field in given)
    return f"{type(value).__name__}({shown})"


def _return_of(function: Any) -> str:
    return _type(inspect.signature(function).return_annotation)


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _doc(value: Any) -> str:
    return f"{inspect.cleandoc(value.__doc__ or '')}\n"


def _table_of_presets(presets: Any) -> str:
    rows = [f"| `{name}` | {_doc(function).splitlines()[0]} |" for name, function in presets.items()]
    head = [
        f'Functions by name, each of which gives an `EncoderConfig`: `PRESETS["{next(iter(presets))}"]()`.\n'
    ]
    return "\n".join([*head, "| name | what |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    main()
