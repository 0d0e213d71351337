"""The verbs about text: tokenizer train learns a vocabulary, shard writes tokens for pretraining."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from modernbert.cli.output import json_option, note, print_json, print_table

Command = Callable[..., None]


def corpus_options(command: Command) -> Command:
    """Give a verb its inputs, the field of their text, and how much of them may be bad."""

    @click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
    @click.option(
        "--field",
        default="text",
        show_default=True,
        help="The field of JSON lines, or the column of Parquet, that holds the text.",
    )
    @click.option(
        "--max-bad-share",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Stop where more of the lines than that hold no document; 0 stops at the first.",
    )
    @functools.wraps(command)
    def with_inputs(*args: Any, **options: Any) -> None:
        command(*args, **options)

    return with_inputs


@click.group()
def tokenizer() -> None:
    """Train a tokenizer on text.

    \b
    modernbert tokenizer train corpus/*.jsonl.zst --vocab-size 16384 --out tok/
    """


@tokenizer.command()
@corpus_options
@click.option("--vocab-size", type=click.IntRange(min=1), required=True, help="How many ids, all counted.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--like",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A model folder: train a new vocabulary for the form of its tokenizer (default: ModernBERT's form).",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=10**9,
    show_default=True,
    help="Read no more text than that, the same of each source.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    help="The longest sequence, as written into tokenizer_config.json.",
)
@click.option(
    "--space-runs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Runs of 2 to that many blanks become tokens of their own; ModernBERT has 24.",
)
def train(
    inputs: tuple[str, ...],
    field: str,
    max_bad_share: float,
    vocab_size: int,
    out: Path,
    like: Path | None,
    max_bytes: int,
    max_length: int,
    space_runs: int,
) -> None:
    """Learn a vocabulary from text and write the files of the tokenizer.

    INPUT is a file, a folder, a pattern in quotes, or an address such as hf://datasets/ORG/NAME/*.parquet:
    text, Markdown, source code, JSON lines (also .gz, .zst), Parquet.

    \b
    modernbert tokenizer train corpus/*.jsonl.zst --vocab-size 16384 --out tok/
    modernbert tokenizer train bg.jsonl.zst --like ./ModernBERT-base --vocab-size 50368 --out tok-bg/
    """
    from modernbert.corpus.bad_lines import BadLines
    from modernbert.corpus.documents import Fields
    from modernbert.corpus.inputs import find_inputs
    from modernbert.corpus.training_texts import training_texts
    from modernbert.errors import TokenizerError
    from modernbert.text.tokenizer_training import train_tokenizer

    if (out / "tokenizer.json").exists():
        raise TokenizerError(f"{out} holds a tokenizer already; name another folder, or remove it")
    if like is not None and space_runs:
        raise click.UsageError("--space-runs is for ModernBERT's form; with --like, the form says it")
    found = find_inputs(inputs)
    bad = BadLines(files=[file.path for file in found.files])
    texts = training_texts(
        found.files, Fields(text=field), bad, max_bytes=max_bytes, max_bad_share=max_bad_share
    )
    trained = train_tokenizer(
        texts, vocab_size=vocab_size, like=like, max_length=max_length, space_runs=space_runs
    )
    trained.save(out)
    _note_left_out(found.left_out)
    if bad.faults:
        note(f"{bad.faults.total():,} of {bad.num_lines:,} lines hold no document:\n{bad.report()}")
    num_documents = bad.num_lines - bad.faults.total()
    note(f"{out} is written: {trained.vocab_size:,} ids, learned from {num_documents:,} documents")


@click.command()
@corpus_options
@click.option(
    "--tokenizer",
    "tokenizer_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with a tokenizer: of `tokenizer train`, or of any model.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--source-field", help="The field that names the source of each row (default: by the names of files)."
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes at work (default: one for each processor)."
)
@click.option("--verify", is_flag=True, help="INPUT is a folder of shards: check every block of every file.")
@json_option
def shard(
    inputs: tuple[str, ...],
    field: str,
    max_bad_share: float,
    tokenizer_folder: Path | None,
    out: Path | None,
    source_field: str | None,
    workers: int | None,
    verify: bool,
    as_json: bool,
) -> None:
    """Write text as shards of tokens, for pretraining.

    INPUT is a file, a folder, a pattern in quotes, or an address such as hf://datasets/ORG/NAME/*.parquet:
    text, Markdown, source code, JSON lines (also .gz, .zst), Parquet. NAME=INPUT names its source. A run that
    was stopped, even by kill -9, goes on when it is called again.

    \b
    modernbert shard corpus/ 'code=src/**/*.py' --tokenizer tok/ --out shards/
    modernbert shard valid.jsonl.zst --source-field register --tokenizer tok/ --out shards-valid/
    modernbert shard shards/ --verify
    """
    from modernbert.corpus.shards import Shards

    if verify:
        for folder in inputs:
            shards = Shards.open(Path(folder))
            shards.verify()
            _show(folder, shards.manifest, as_json)
            note(f"{folder} is right: every block of every file is as it was written")
        return
    if tokenizer_folder is None or out is None:
        raise click.UsageError("--tokenizer and --out are needed, or --verify with folders of shards")
    from modernbert.corpus.documents import Fields
    from modernbert.corpus.shard_writing import write_shards
    from modernbert.text.tokenizer import Tokenizer

    try:
        shards = write_shards(
            inputs,
            out,
            tokenizer=Tokenizer.from_folder(tokenizer_folder),
            fields=Fields(text=field, source=source_field),
            max_bad_share=max_bad_share,
            num_workers=workers,
        )
    except KeyboardInterrupt:
        note("stopped; what is done is kept: run the same again, and it goes on")
        raise
    _note_faults(shards.manifest)
    _show(str(out), shards.manifest, as_json)
    note(f"{out} is written")


def _show(folder: str, manifest: Mapping[str, Any], as_json: bool) -> None:
    """What the shards hold: a line for each source and one for all."""
    sources: dict[str, dict[str, int]] = manifest["sources"]
    if as_json:
        names = ("vocab_size", "tokenizer_sha256", "sources", "bad_lines", "without_tokens", "mended")
        print_json({"shards": folder, **{name: manifest[name] for name in names}})
        return
    total = {
        name: sum(each[name] for each in sources.values()) for name in ("documents", "tokens", "text_bytes")
    }
    rows: list[Sequence[str]] = [("source", "documents", "tokens", "bytes of text", "bytes/token")]
    for source, counts in [*sources.items(), ("all", total)]:
        numbers = [f"{counts[name]:,}" for name in ("documents", "tokens", "text_bytes")]
        rows.append((source, *numbers, f"{counts['text_bytes'] / counts['tokens']:.2f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print_table(
        [
            (row[0], *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
            for row in rows
        ]
    )


def _note_faults(manifest: Mapping[str, Any]) -> None:
    from modernbert.corpus.bad_lines import BadLines

    bad = BadLines(files=manifest["files"])
    bad.merge(manifest["bad_lines"])
    _note_left_out(manifest["left_out_files"])
    if bad.faults:
        note(f"{bad.faults.total():,} of {bad.num_lines:,} lines hold no document:\n{bad.report()}")
    if manifest["without_tokens"]:
        note(f"texts without a token, left out: {manifest['without_tokens']:,}")
    if manifest["mended"]:
        note(f"texts with halves of characters (lone surrogates), now U+FFFD: {manifest['mended']:,}")


def _note_left_out(left_out: Mapping[str, int]) -> None:
    if left_out:
        kinds = ", ".join(f"{ending} {count:,}" for ending, count in left_out.items())
        note(f"files of other kinds, left out: {kinds}")
