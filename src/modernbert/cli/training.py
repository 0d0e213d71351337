"""The verbs about training: pretrain runs a recipe, runs shows what has been run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modernbert.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from modernbert.training.curves import Summary


@click.command()
@click.argument("recipe")
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Shards to learn from, written by `modernbert shard`.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The run's folder; one that was begun goes on.",
)
@click.option(
    "--valid",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Shards to be measured on; without it one document in a hundred is held back for that.",
)
@click.option(
    "--probe", is_flag=True, help="At every evaluation also score the vectors: classification and retrieval."
)
@click.option(
    "--probe-classification",
    "labelled",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same, with the labels of a file instead of sources: columns or fields text and label.",
)
@click.option(
    "--start-from",
    metavar="MODEL",
    help="Go on from a model folder or a bundled name instead of fresh weights.",
)
@click.option("--tokens", metavar="N", help="Train on so many tokens, such as 20M; phases keep their shares.")
@click.option("--seed", type=int, help="Another seed than the recipe's.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--backend", default="auto", show_default=True, help="The attention kernel.")
@click.option(
    "--shard-model", is_flag=True, help="Spread parameters over processes (FSDP2) instead of copying them."
)
@click.option("--recompute", is_flag=True, help="Save memory: compute layers again in the backward pass.")
@click.option(
    "--compile", "compiles", is_flag=True, help="Use torch.compile; goes on without where it fails."
)
@click.pass_context
def pretrain(
    ctx: click.Context,
    recipe: str,
    data: Path,
    out: Path,
    valid: Path | None,
    probe: bool,
    labelled: Path | None,
    start_from: str | None,
    tokens: str | None,
    seed: int | None,
    device: str,
    backend: str,
    shard_model: bool,
    recompute: bool,
    compiles: bool,
) -> None:
    """Train a model from text: RECIPE is a name (tiny, nano, base, large, own_language) or a file.

    Ctrl-C, a kill or a power cut lose nothing but a few minutes: run the same command again.

    \b
    modernbert pretrain tiny --data shards/ --out runs/first --probe
    torchrun --nproc-per-node 8 -m modernbert pretrain base --data shards/ --out runs/base
    """
    from modernbert.recipes import find
    from modernbert.training.probes import ProbeConfig
    from modernbert.training.run import Switches, pretrain

    count = None if tokens is None else parse_count(tokens)
    chosen = find(recipe, tokens=count, seed=seed, start_from=start_from)
    switches = Switches(
        device=device,
        backend=backend,
        spread="shard" if shard_model else "replicate",
        recomputes_layers=recompute,
        compiles=compiles,
    )
    probes = ProbeConfig(labelled=labelled) if probe or labelled is not None else None
    final = pretrain(chosen, data, out, valid=valid, probes=probes, switches=switches)
    if os.environ.get("RANK", "0") != "0":
        ctx.exit(0)  # of many processes the first one speaks
    if final is None:
        note(f"stopped and saved; run the same command to go on from {out}")
        ctx.exit(0)
    note(
        f"finished: {final} is a model folder. Try it: "
        f"modernbert fill-mask --model {final} 'He walked to the [MASK].'"
    )


def parse_count(text: str) -> int:
    """A number of tokens: 20000000, 20_000_000, 20M, 1.5B or 300k."""
    units = {"k": 10**3, "m": 10**6, "b": 10**9}
    cleaned = text.strip().lower().replace("_", "").replace(",", "")
    unit = units.get(cleaned[-1:])
    try:
        count = int(float(cleaned if unit is None else cleaned[:-1]) * (unit or 1))
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise click.BadParameter(
            f"{text!r} is no number of tokens; write 20000000, 20M or 1.5B", param_hint="--tokens"
        )
    return count


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
def runs(folder: Path, as_json: bool) -> None:
    """A table of the runs in FOLDER, and the curves of each as curves.png in its folder.

    \b
    modernbert runs runs/
    tensorboard --logdir runs/      # the same figures, where tensorboard is installed

    Of a run with --probe, "told apart" is the balanced accuracy of sources (or labels), and "found" the mean
    reciprocal rank of the other halves of documents.
    """
    from dataclasses import asdict

    from modernbert.errors import TrainingError
    from modernbert.training.curves import PICTURE, draw, find_runs, summarize

    found: list[tuple[Path, Summary]] = []
    for path in find_runs(folder):
        try:
            found.append((path, summarize(path)))
        except TrainingError as error:
            note(f"left out: {error}")
    # a fine-tuning draws its own, with the figures of its task
    pictures = [draw(path) if one.total_tokens is not None else path / PICTURE for path, one in found]
    if as_json:
        for (_, summary), picture in zip(found, pictures, strict=True):
            print_json(asdict(summary) | {"curves": str(picture)})
        return
    print_table(_table([summary for _, summary in found]), indent=0)
    if pictures:
        note(f"curves are in {', '.join(map(str, pictures))}")


def _table(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A head and a row for each run; scores of probes where any run has some."""
    has_probes = any(each.probe_retrieval or each.probe_classification for each in summaries)
    head = ("run", "recipe", "phase", "tokens", "loss", "held out", "accuracy")
    rows: list[tuple[str, ...]] = [(*head, *(("told apart", "found") if has_probes else ()), "tokens/s", "")]
    for summary in summaries:
        skipped = f"skipped {summary.num_skipped}" if summary.num_skipped else ""
        figures = [summary.loss, summary.valid_loss, summary.valid_accuracy]
        if has_probes:
            figures += [summary.probe_classification, summary.probe_retrieval]
        rows.append(
            (
                summary.name,
                summary.recipe,
                summary.phase,
                f"{summary.tokens:,}"
                + ("" if summary.total_tokens is None else f" of {summary.total_tokens:,}"),
                *map(_figure, figures),
                f"{summary.tokens_per_second:,.0f}",
                "finished" if summary.is_finished else skipped,
            )
        )
    return rows


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
