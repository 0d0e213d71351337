"""The verb that writes a model for other runtimes."""

from __future__ import annotations

from pathlib import Path

import click

from modernbert.cli.models import find_folder, offline_option, revision_option
from modernbert.cli.output import note

FORMATS = ("onnx",)


@click.command()
@click.argument("model")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="onnx",
    show_default=True,
    help="What other runtimes read.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write; whole, or not at all."
)
@revision_option
@offline_option
def export(model: str, form: str, out: Path, revision: str | None, offline: bool) -> None:
    """Write a model for ONNX Runtime, OpenVINO and others, in float32, with its tokenizer.

    The graph takes padded rows of any number and length. It needs `pip install 'modernbert[export]'`.

    \b
    modernbert export MODEL --format onnx --out MODEL-onnx
    """
    import torch

    from modernbert.inference.export import export_onnx
    from modernbert.pretrained.folder import read_folder

    del form  # one so far, and click has checked it
    export_onnx(read_folder(find_folder(model, revision, offline), dtype=torch.float32), out)
    note(f"{out} is written")
