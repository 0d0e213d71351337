"""The verbs about model folders: info looks into one, convert writes another from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modernbert.cli.models import STORED_DTYPES, default_model, find_folder, offline_option, revision_option
from modernbert.cli.output import json_option, note, print_heading, print_json, print_table, require_place

if TYPE_CHECKING:
    from modernbert.cli.checks import Check

FORMS = ("transformers", "parts", "research")
FILES_SHOWN = 20


@click.command()
@click.argument("model", required=False)
@click.option(
    "--check",
    is_flag=True,
    help="Read every number, run the model on a few tokens; exit 1 if anything is wrong.",
)
@revision_option
@offline_option
@json_option
@click.pass_context
def info(
    ctx: click.Context, model: str | None, check: bool, revision: str | None, offline: bool, as_json: bool
) -> None:
    """What a model folder holds and can do.

    \b
    modernbert info answerdotai/ModernBERT-base
    modernbert info ./my-model --check
    """
    name = model or default_model()
    folder = find_folder(name, revision, offline)
    from modernbert.cli.checks import check_model
    from modernbert.cli.facts import facts_of
    from modernbert.pretrained.folder import read_folder

    pretrained = read_folder(folder)
    facts = facts_of(name, folder, pretrained)
    checks = check_model(folder, pretrained) if check else []
    if as_json:
        print_json(facts | ({"checks": [each.as_json() for each in checks]} if check else {}))
    else:
        _print_facts(facts)
        _print_checks(checks)
    if not all(each.is_right for each in checks):
        note("error: something is wrong with this folder; see the checks above")
        ctx.exit(1)


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    type=click.Choice(FORMS),
    default="transformers",
    show_default=True,
    help="A folder for transformers, one of our own parts, or a checkpoint file for the research code.",
)
@click.option(
    "--preset",
    help="What a research checkpoint holds, where it does not say: a preset, or FlexBERT's options as JSON.",
)
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder to take the tokenizer from.",
)
@click.option(
    "--allow",
    multiple=True,
    help="A name such as numpy.dtype that a checkpoint may hold; nothing of it runs.",
)
@click.option("--dtype", type=click.Choice(STORED_DTYPES), help="Store in this format (default: as it was).")
@revision_option
@offline_option
def convert(
    source: str,
    target: Path,
    form: str,
    preset: str | None,
    tokenizer: Path | None,
    allow: Sequence[str],
    dtype: str | None,
    revision: str | None,
    offline: bool,
) -> None:
    """Write a model in another form.

    Between folders for transformers, folders of our own parts, and research checkpoints. SOURCE is a folder,
    a hub id, or a checkpoint file. TARGET is written whole, or left as it was. A checkpoint that was written
    here converts back without a word on what it holds.

    \b
    modernbert convert latest-rank0.pt ./model --preset modernbert-base --tokenizer ./tokenizer
    modernbert convert ./model ./model-parts --to parts
    """
    from modernbert.kernels.hardware import DTYPES as TORCH_DTYPES
    from modernbert.pretrained.convert import FORMS as KNOWN
    from modernbert.pretrained.convert import config_named
    from modernbert.pretrained.convert import convert as convert_model

    if form == "research":
        require_place(target)
    elif target.resolve() == Path.cwd():
        raise click.UsageError(
            f"{str(target)!r} is the folder you stand in, and would be replaced as a whole; name it from "
            "outside"
        )
    is_file = Path(source).is_file()
    convert_model(
        Path(source) if is_file else find_folder(source, revision, offline),
        target,
        to=KNOWN[FORMS.index(form)],
        config=None if preset is None else config_named(preset),
        tokenizer=tokenizer,
        allow=allow,
        dtype=None if dtype is None else TORCH_DTYPES[dtype],
    )
    note(f"{target} is written")


def _print_facts(facts: Mapping[str, Any]) -> None:
    print_heading(str(facts["model"]))
    print_table([name.replace("_", " "), _for_person(value)] for name, value in _lines(facts))


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if name in ("model", "files", "layer_kinds"):
            continue
        lines.append((name, value))
        if name == "layers":
            lines += [("", f"{letter}  {words}") for letter, words in facts["layer_kinds"].items()]
    for place, (name, size) in enumerate(list(facts["files"].items())[:FILES_SHOWN]):
        lines.append(("" if place else "files", f"{size:>15,}  {name}"))
    if len(facts["files"]) > FILES_SHOWN:
        lines.append(("", f"and {len(facts['files']) - FILES_SHOWN} more, which --json lists"))
    return lines


def _for_person(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_for_person(inner)}" for name, inner in value.items())
    return (
        ", ".join(map(str, value))
        if isinstance(value, Sequence) and not isinstance(value, str)
        else str(value)
    )


def _print_checks(checks: Sequence[Check]) -> None:
    if checks:
        click.echo()
        print_table(["right" if each.is_right else "WRONG", each.name, each.found] for each in checks)
