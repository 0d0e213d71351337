"""The verb finetune: a task each, from a labelled file to a model folder with a report."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modernbert.cli.group import Verbs
from modernbert.cli.models import default_model
from modernbert.cli.output import note

if TYPE_CHECKING:
    from modernbert.training.tasks.task import TaskConfig

Command = Callable[..., Any]
_NUM_FIRST = 3  # DATA, --out and --model
OPTIMIZERS = ("adamw", "stableadamw", "adopt", "muon")


@click.group(cls=Verbs)
def finetune() -> None:
    """Teach a model a task by your own labelled rows.

    One command reads the file, splits it, trains, measures, and leaves a model folder with report.md.
    Ctrl-C and kills lose nothing: run the same command again.

    \b
    modernbert finetune classify reviews.csv --text text --label label --model FOLDER --out sentiment/
    """


def run_options(command: Command) -> Command:
    """What all tasks share. The command is called with the task's own options, and gives the task."""
    num_own = len(getattr(command, "__click_params__", ()))

    @click.argument("data")
    @click.option("--out", required=True, type=click.Path(path_type=Path), help="The new model folder.")
    @click.option("--model", "-m", help="The encoder to begin with: a folder, a hub id, or a bundled name.")
    @training_options
    @functools.wraps(command)
    @click.pass_context
    def with_run(ctx: click.Context, /, *, data: str, out: Path, model: str | None, **words: Any) -> None:
        rest = {name: value for name, value in words.items() if name not in TRAINING}
        train(ctx, command(**rest), data, model or default_model(), out, words)

    # click shows options from the last of this list to the first, and a task's own stand before the run's
    parameters: list[click.Parameter] = getattr(with_run, "__click_params__")  # noqa: B009
    first, last = parameters[-_NUM_FIRST:], parameters[num_own:-_NUM_FIRST]
    parameters[:] = [*last, *parameters[:num_own], *first]
    return with_run


_OPTIONS = (
    click.option("--dev", help="Rows to choose the best weights by; else split off."),
    click.option("--test", help="Rows to test with, once, at the end; else split off."),
    click.option("--dev-share", default=0.1, show_default=True, help="Of the rows, without --dev."),
    click.option(
        "--test-share", default=0.1, show_default=True, help="Of the rows, without --dev and --test."
    ),
    click.option("--epochs", default=3, show_default=True, help="Passes over the rows to learn from."),
    click.option("--batch-size", default=32, show_default=True, help="Examples of one update."),
    click.option(
        "--lr", "learning_rate", type=float, help="The peak of the rate (default: by the model's width)."
    ),
    click.option(
        "--optimizer", type=click.Choice(OPTIMIZERS), default="adamw", show_default=True, help="See the docs."
    ),
    click.option("--weight-decay", type=float, help="(default: the optimiser's)"),
    click.option("--warmup", "warmup_share", default=0.1, show_default=True, help="Share of the run."),
    click.option("--layer-decay", default=1.0, show_default=True, help="Of the rate, layer by layer down."),
    click.option(
        "--freeze", "num_frozen_layers", default=0, show_default=True, help="Lower layers that do not learn."
    ),
    click.option("--max-length", type=int, help="The longest sequence in tokens (default: the model's)."),
    click.option(
        "--pack-tokens", default=8192, show_default=True, help="Tokens that go through the model at once."
    ),
    click.option("--patience", default=3, show_default=True, help="Epochs without a better one; 0: no stop."),
    click.option("--seed", default=17, show_default=True, help="Of splits, order and new weights."),
    click.option(
        "--adapt",
        "adapt_passes",
        default=0,
        show_default=True,
        help="First learn to fill masks in the texts, in so many passes.",
    ),
    click.option("--sweep", multiple=True, help="Try values and keep the best, such as lr=1e-5,3e-5,8e-5."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto."),
    click.option("--backend", default="auto", show_default=True, help="The attention kernel."),
    click.option("--recompute", is_flag=True, help="Save memory: compute layers again backwards."),
    click.option("--compile", "compiles", is_flag=True, help="Use torch.compile where it works."),
)
_SETTINGS = (
    *("epochs", "batch_size", "learning_rate", "warmup_share", "layer_decay", "num_frozen_layers"),
    *("max_length", "pack_tokens", "seed", "adapt_passes"),
)
TRAINING = frozenset(
    (
        *_SETTINGS,
        *("dev", "test", "dev_share", "test_share", "optimizer", "weight_decay", "patience", "sweep"),
        *("device", "backend", "recompute", "compiles"),
    )
)


def training_options(command: Command) -> Command:
    """The options of every run; `train` takes their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def train(
    ctx: click.Context, task: TaskConfig, data: str, model: str, out: Path, words: Mapping[str, Any]
) -> None:
    """Fine-tune by the values of the options, and say where the result is."""
    from modernbert.training.finetune_run import Sources, finetune
    from modernbert.training.finetuning import Finetuning
    from modernbert.training.run import Switches
    from modernbert.training.sweep import parse_sweep

    settings = Finetuning(
        optimizer=_optimizer(words["optimizer"], words["weight_decay"]),
        patience=words["patience"] or None,
        **{name: words[name] for name in _SETTINGS},
    )
    done = finetune(
        task,
        Sources(train=data, **{name: words[name] for name in ("dev", "test", "dev_share", "test_share")}),
        model=model,
        out=out,
        settings=settings,
        sweep=parse_sweep(words["sweep"]),
        switches=Switches(
            device=words["device"],
            backend=words["backend"],
            recomputes_layers=words["recompute"],
            compiles=words["compiles"],
        ),
    )
    if os.environ.get("RANK", "0") != "0":
        ctx.exit(0)  # of many processes the first one speaks
    if done is None:
        note("stopped and saved; run the same command to go on")
        ctx.exit(0)
    note(f"finished: {done} is a model folder; read {done / 'report.md'}")


def _optimizer(name: str, weight_decay: float | None) -> Any:
    from modernbert.training.optim import AdamWConfig, AdoptConfig, MuonConfig, StableAdamWConfig

    known = {"adamw": AdamWConfig, "stableadamw": StableAdamWConfig, "adopt": AdoptConfig, "muon": MuonConfig}
    return known[name]() if weight_decay is None else known[name](weight_decay=weight_decay)


@finetune.command()
@run_options
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@click.option("--pair", "second", help="The column of second texts, where pairs are judged.")
@click.option("--label", default="label", show_default=True, help="The column of labels or values.")
@click.option(
    "--multi-label", is_flag=True, help="Any number of labels: a JSON list, or split at --separator."
)
@click.option("--regression", is_flag=True, help="The labels are numbers.")
@click.option("--separator", default="|", show_default=True, help="Between the labels of a row.")
@click.option("--balanced", is_flag=True, help="Let each class count alike, however rare it is.")
@click.option(
    "--label-smoothing", default=0.0, show_default=True, help="Share of a label given to the others."
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of the file, such as cp1251.")
def classify(*, multi_label: bool, regression: bool, balanced: bool, **words: Any) -> TaskConfig:
    """Sentiment, topics, spam: labels for texts or pairs of texts.

    \b
    modernbert finetune classify reviews.csv --text text --label label --model FOLDER --out sentiment/
    modernbert classify --model sentiment/ "A film to remember."
    """
    from modernbert.training.tasks.classify import Classify

    if multi_label and regression:
        raise click.UsageError("--multi-label and --regression exclude each other")
    problem = "multi_label" if multi_label else "regression" if regression else "single_label"
    return Classify(problem=problem, class_weights="balanced" if balanced else "equal", **words)


@click.command()
@click.argument("teacher")
@click.option(
    "--to", "student", required=True, help="The model that learns: a folder, a hub id, a bundled name."
)
@click.option(
    "--texts", required=True, help="A table of texts (CSV, JSON lines, Parquet); labels are not needed."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new model folder.")
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@click.option(
    "--structure", default=1.0, show_default=True, help="How much the cosines within a batch count."
)
@click.option("--temperature", default=2.0, show_default=True, help="Softens the probabilities of classes.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of the file, such as cp1251.")
@training_options
@click.pass_context
def distill(
    ctx: click.Context,
    teacher: str,
    student: str,
    texts: str,
    out: Path,
    text: str,
    structure: float,
    temperature: float,
    encoding: str,
    **words: Any,
) -> None:
    """Teach a small model what the large model TEACHER says of your texts.

    Of an embedding model its vectors are learned, of a classifier its probabilities.

    \b
    modernbert distill path/to/all-MiniLM-L6-v2 --to small/ --texts passages.jsonl --out embedder/
    """
    from modernbert.training.tasks.distill import Distill

    task = Distill(
        teacher=teacher,
        text=text,
        structure=structure,
        temperature=temperature,
        encoding=encoding,
        pack_tokens=words["pack_tokens"],
    )
    train(ctx, task, texts, student, out, words)
