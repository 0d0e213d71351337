"""Which model a verb asks and how it is loaded: the options that verbs share, the error of a wrong verb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modernbert import bundled
from modernbert.cli.output import note

if TYPE_CHECKING:
    from modernbert.inference.pipeline import Model

Command = Callable[..., None]

STORED_DTYPES = ("float32", "bfloat16", "float16")
DTYPES = ("auto", *STORED_DTYPES, "int8")
OVERFLOWS = ("windows", "truncate", "error")
# The verbs, by the task of a model that each needs.
VERB_OF_TASK = {
    "fill_masks": "fill-mask",
    "embed": "embed",
    "similarity": "similarity",
    "rerank": "rerank",
    "classify": "classify",
    "tag": "tag",
    "answers": "answer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """What the options say about the model."""

    name: str
    dtype: str
    device: str
    backend: str
    revision: str | None
    offline: bool


revision_option = click.option("--revision", help="A branch, tag or commit of the hub.")
offline_option = click.option("--offline", is_flag=True, help="Take a hub model from the cache only.")
max_length_option = click.option(
    "--max-length", type=int, help="The longest sequence in tokens (default: what the folder says)."
)
prompt_option = click.option(
    "--prompt", help='A prompt of the folder by name; "query" and "document" may always be named.'
)
overflow_option = click.option(
    "--overflow",
    type=click.Choice(OVERFLOWS),
    default="windows",
    show_default=True,
    help="What happens to a text that is too long: overlapping windows, a cut with a warning, or an error.",
)


def model_options(command: Command) -> Command:
    """Give a verb its model as the argument `choice`."""

    @click.option("--model", "-m", help="A folder, a hub id, or a bundled name.")
    @click.option(
        "--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="What to compute in."
    )
    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
    @click.option("--backend", default="auto", show_default=True, help="The attention kernel.")
    @revision_option
    @offline_option
    @functools.wraps(command)
    def with_choice(
        *,
        model: str | None,
        dtype: str,
        device: str,
        backend: str,
        revision: str | None,
        offline: bool,
        **rest: Any,
    ) -> None:
        choice = ModelChoice(
            name=model or default_model(),
            dtype=dtype,
            device=device,
            backend=backend,
            revision=revision,
            offline=offline,
        )
        command(choice=choice, **rest)

    return with_choice


def default_model() -> str:
    """The bundled model; without one the call was wrong, and says how to name a model."""
    names = bundled.names()
    if not names:
        raise click.UsageError(
            "no model is named, and none is bundled yet; pass --model with a folder or a hub id, such as "
            "answerdotai/ModernBERT-base"
        )
    return names[0]


def load_for(task: str, choice: ModelChoice) -> Model:
    """The model, if it serves the task; TaskError says which verbs it has instead."""
    from modernbert.inference.loading import load

    _note_no_effect(choice.name, choice.revision)
    model = load(
        choice.name,
        dtype=choice.dtype,
        device=choice.device,
        backend=choice.backend,
        revision=choice.revision,
        offline=choice.offline,
    )
    require(task, model)
    return model


def require(task: str, model: Model) -> None:
    """TaskError, with the verbs that the model has, unless it serves the task."""
    if task in model.tasks:
        return
    from modernbert.errors import TaskError
    from modernbert.inference.tasks import describe

    instead = ", ".join(verbs_of(model.tasks)) or "none of the verbs; see `modernbert info`"
    raise TaskError(
        f"{model.name} cannot {VERB_OF_TASK[task]}: it is {describe(model.config.head)}. It can: {instead}"
    )


def verbs_of(tasks: tuple[str, ...]) -> list[str]:
    """The verbs that serve these tasks."""
    return [verb for task, verb in VERB_OF_TASK.items() if task in tasks]


def find_folder(name: str, revision: str | None, offline: bool) -> Path:
    """The folder behind a name, fetched where it is the hub's."""
    from modernbert.pretrained.hub import fetch

    _note_no_effect(name, revision)
    return bundled.path(name) if name in bundled.names() else fetch(name, revision=revision, offline=offline)


def _note_no_effect(name: str, revision: str | None) -> None:
    if revision is not None and (Path(name).is_dir() or name in bundled.names()):
        note(f"warning: --revision {revision} has no effect: {name} is a folder on this machine")
