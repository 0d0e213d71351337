"""The verbs that make a model out of others, without training: average, tile, resize."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from modernbert.cli.models import find_folder, offline_option
from modernbert.cli.output import note

if TYPE_CHECKING:
    from modernbert.pretrained.tiling import LayerMap, Mode

out_option = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write; whole, or not at all."
)


@click.command()
@click.argument("models", nargs=-1, required=True)
@out_option
@offline_option
def average(models: Sequence[str], out: Path, offline: bool) -> None:
    """The mean of several checkpoints of one model: often better than the last alone.

    All must have the same shape and vocabulary.

    \b
    modernbert average runs/a/final runs/b/final runs/c/final --out mean
    """
    from modernbert.pretrained.folder import write_folder
    from modernbert.pretrained.surgery import average_models

    write_folder(out, average_models([find_folder(name, None, offline) for name in models]))
    note(f"{out} is the mean of {len(models)} models")


@click.command()
@click.argument("small")
@click.option("--to", required=True, help="A preset, or a config.json (ours or transformers'), to grow to.")
@out_option
@click.option(
    "--mode",
    type=click.Choice(("middle", "edge")),
    default="middle",
    show_default=True,
    help="Where the old weights lie in the new: copies on both sides, or behind.",
)
@click.option(
    "--layers",
    type=click.Choice(("aligned", "published")),
    default="aligned",
    show_default=True,
    help="Layers from old ones that see as much, or by depth alone as ModernBERT-large.",
)
@click.option(
    "--divide/--no-divide",
    default=True,
    show_default=True,
    help="Whether what reads copies is divided among them, which keeps what the model computes.",
)
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="How far copies are moved apart, as a share of their matrix's deviation.",
)
@offline_option
def tile(
    small: str, to: str, out: Path, mode: str, layers: str, divide: bool, noise: float, offline: bool
) -> None:
    """Begin a larger model from a smaller one, to be trained on.

    Its weights are the small model's, repeated. The vocabulary and the head stay.

    \b
    modernbert tile jhu-clsp/ettin-encoder-17m --to ettin-68m --out start
    modernbert pretrain my_recipe.py --data shards/ --out runs/large --start-from start
    """
    from modernbert.pretrained.folder import read_folder, write_folder
    from modernbert.pretrained.tiling import Tiling, encoder_named, tile_model

    how = Tiling(mode=cast("Mode", mode), layers=cast("LayerMap", layers), divides_copies=divide, noise=noise)
    larger = tile_model(read_folder(find_folder(small, None, offline)), encoder_named(to), how)
    write_folder(out, larger)
    num_parameters = sum(each.numel() for each in larger.module.parameters())
    note(f"{out} has {num_parameters:,} parameters; it is a start to train from, not a finished model")


@click.command()
@click.argument("model")
@click.option(
    "--tokenizer",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with the new tokenizer.",
)
@out_option
@offline_option
def resize(model: str, tokenizer: Path, out: Path, offline: bool) -> None:
    """Give a model another vocabulary, to be trained on in another language or domain.

    Entries of both vocabularies keep what the model knows of them; a new one begins at the mean of the pieces
    that the old tokenizer makes of it.

    \b
    modernbert tokenizer train texts/ --out tok
    modernbert resize answerdotai/ModernBERT-base --tokenizer tok --out start
    """
    from modernbert.errors import TokenizerError
    from modernbert.pretrained.folder import read_folder, write_folder
    from modernbert.pretrained.surgery import match_vocabulary, resize_vocabulary
    from modernbert.text.tokenizer import Tokenizer

    old, new = read_folder(find_folder(model, None, offline)), Tokenizer.from_folder(tokenizer)
    if old.tokenizer is None:
        raise TokenizerError(
            f"{model} has no tokenizer: nothing says what the rows of its embedding stand for"
        )
    match = match_vocabulary(old.tokenizer, new)
    write_folder(out, resize_vocabulary(old, new, match))
    note(
        f"{out} has {len(match.pieces):,} entries: {match.num_kept:,} kept, {match.num_composed:,} made of "
        f"pieces, {match.num_unmatched:,} begun at the mean of all"
    )
