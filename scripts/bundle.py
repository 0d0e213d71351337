"""Make a finished pretraining run a model that ships: weights in bfloat16, card, journal and curves.

    python scripts/bundle.py runs/nano --name nano --corpus corpus/ --processor "a laptop"
    python scripts/bundle.py runs/more --name nano --corpus corpus/ --processor "two laptops" --goes-on

A model may be trained in stretches, each a run that began with the weights of the one before (`pretrain
--start-from`): with --goes-on its journal follows what stands in docs already. The folder goes to
src/modernbert/bundled/NAME, the rest to docs/NAME. Every figure of the card comes from the journal; licences
and sources are counted from the corpus.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import zstandard

import modernbert
from modernbert.recipes import RECIPES
from modernbert.training import curves

ROOT = Path(__file__).parent.parent
REGISTERS = ("books", "prose", "docs", "code")
SENTENCES = (
    "The capital of France is [MASK].",
    "He opened the door and walked into the [MASK].",
    "import [MASK] as np",
    "The function returns [MASK] if the list is empty.",
)


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument(
        "--corpus", type=Path, required=True, help="the .jsonl.zst files that it learned from"
    )
    parser.add_argument("--processor", required=True, help="what it was trained on, in words")
    parser.add_argument(
        "--goes-on", action="store_true", help="the run began with the weights that ship: a further stretch"
    )
    args = parser.parse_args()
    folder, docs = ROOT / "src" / "modernbert" / "bundled" / args.name, ROOT / "docs" / args.name
    docs.mkdir(parents=True, exist_ok=True)
    modernbert.load(args.run / "final", dtype=torch.bfloat16, device="cpu").save(folder)
    write_journal(args.run, docs, goes_on=args.goes_on)
    sources = read_sources(args.corpus)
    (docs / "sources.md").write_text(sources_page(args.name, sources), encoding="utf-8")
    (folder / "README.md").write_text(card(args, folder, docs, sources), encoding="utf-8")
    (docs / "README.md").write_text(page(args.name, folder), encoding="utf-8")


def write_journal(run: Path, docs: Path, *, goes_on: bool) -> None:
    """The run's steps, evaluations, recipe and curves; after those of earlier stretches, if it goes on."""
    earlier = read_journal(docs) if goes_on else []
    measured = read_json_lines(docs / "evaluations.jsonl") if goes_on else []
    stretch = earlier[-1]["stretch"] + 1 if goes_on else 1
    first_step, first_token = (earlier[-1]["step"], earlier[-1]["tokens"]) if goes_on else (0, 0)

    def following(path: Path) -> list[dict[str, Any]]:
        places = {"step": first_step, "tokens": first_token}
        rows = read_json_lines(path)
        return [row | {key: row[key] + before for key, before in places.items()} for row in rows]

    steps = earlier + [row | {"stretch": stretch} for row in following(run / "journal.jsonl")]
    evaluations = measured + following(run / "evaluations.jsonl")
    recipe = (run / "recipe.json").read_bytes()
    with tempfile.TemporaryDirectory() as work:
        whole = Path(work, docs.name)
        whole.mkdir()
        # phases of the same name in two stretches are two marks in the picture
        write_json_lines(whole / "journal.jsonl", [row | {"phase": phase_name(row)} for row in steps])
        write_json_lines(whole / "evaluations.jsonl", evaluations)
        (whole / "recipe.json").write_bytes(recipe)
        shutil.copy(curves.draw(whole), docs / "curves.png")
        shutil.copy(whole / "evaluations.jsonl", docs)
        with gzip.GzipFile(docs / "journal.jsonl.gz", "wb", mtime=0) as file:
            file.write(json_lines(steps).encode())
    (docs / recipe_name(stretch)).write_bytes(recipe)


def phase_name(step: Mapping[str, Any]) -> str:
    """With the stretch, from the second on."""
    return step["phase"] if step["stretch"] == 1 else f"{step['phase']} {step['stretch']}"


def recipe_name(stretch: int) -> str:
    """The file of a stretch's recipe."""
    return "recipe.json" if stretch == 1 else f"recipe-{stretch}.json"


def read_journal(docs: Path) -> list[dict[str, Any]]:
    """The steps of all stretches."""
    text = gzip.decompress((docs / "journal.jsonl.gz").read_bytes()).decode()
    return [{"stretch": 1} | json.loads(line) for line in text.splitlines()]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file, .zst taken off."""
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)


def read_sources(corpus: Path) -> dict[str, Counter[tuple[str, str]]]:
    """For each register how many documents come from each source under each licence."""
    registers = [path for path in sorted(corpus.glob("*.jsonl.zst")) if path.name.split(".")[0] in REGISTERS]
    return {
        path.name.split(".")[0]: Counter((row["source"], row["licence"]) for row in read_lines(path))
        for path in registers
    }


def sources_page(name: str, sources: Mapping[str, Counter[tuple[str, str]]]) -> str:
    """Where the text came from, for all to whom credit is due."""
    rows = [
        (register, source, licence, f"{count:,}")
        for register, found in sources.items()
        for (source, licence), count in sorted(found.items())
    ]
    table = markdown(("register", "source", "licence", "documents"), rows)
    return f"# What {name} has read\n\nAll of it, by source.\n\n{table}\n"


def card(
    args: argparse.Namespace, folder: Path, docs: Path, sources: Mapping[str, Counter[tuple[str, str]]]
) -> str:
    """The model's README.md, as model hubs read it."""
    model = modernbert.load(folder, dtype="float32", device="cpu")
    steps = read_journal(docs)
    evaluations = read_json_lines(docs / "evaluations.jsonl")
    last, num_tokens = evaluations[-1], steps[-1]["tokens"]
    seconds = sum(
        (row["tokens"] - before["tokens"]) / row["tokens_per_second"] for before, row in pairwise(steps)
    )
    size = sum(parameter.numel() for parameter in model.module.parameters())
    num_bytes = (folder / "model.safetensors").stat().st_size
    config = model.config.encoder
    fills = [
        (f"`{text}`", ", ".join(f"{fill.token.strip()} {fill.score:.2f}" for fill in model.fill_mask(text)))
        for text in SENTENCES
    ]
    licences = [
        (register, f"{sum(found.values()):,}", ", ".join(sorted({licence for _, licence in found})))
        for register, found in sources.items()
    ]
    phases = phases_of(steps, docs)
    num_stretches = steps[-1]["stretch"]
    way = "from nothing, "
    if num_stretches > 1:
        way = f"in {num_stretches} stretches, the first from nothing, each other from the weights before it, "
    planned, speed = RECIPES["nano"]().num_tokens / 1e6, num_tokens / seconds
    room, vocabulary = f"{config.max_positions:,} tokens", f"{config.vocab_size:,}"
    return f"""---
language: en
library_name: transformers
license: apache-2.0
pipeline_tag: fill-mask
tags: [modernbert]
---

# {args.name}

A small ModernBERT: {size / 1e6:.1f} M parameters, {len(config.blocks)} layers of {config.hidden_size}, a
vocabulary of {vocabulary} of text and code, {room}, {num_bytes / 2**20:.1f} MiB in bfloat16. It comes
with the package `modernbert` and loads in transformers.

```console
$ modernbert fill-mask "{SENTENCES[0]}"
```

## How it was trained

`modernbert pretrain nano`, its phases shortened, on {num_tokens:,} tokens,
{way}on {args.processor}:
{seconds / 3600:.1f} hours at {speed:,.0f} tokens a second, beside other work. That is little: the recipe
is made for {planned:.0f} M tokens, and the loss was still falling.

{markdown(("stretch", "phase", "tokens", "longest sequence", "masked", "last loss in training"), phases)}

Curves, journal, recipe and sources are in docs/{args.name} of the repository.

## How good it is

On held-out documents, {last["num_masked"]:,.0f} tokens masked, 15 % of them:

{markdown(("register", "loss", "guessed right"), quality(last))}

The likeliest fills, in order:

{markdown(("text", "fills"), fills)}

It knows the grammar of English and of Python better than facts, as one expects of so small a model that has
read so little. Good for trying things offline and for tests. It has not been fine-tuned on any set yet: how
good a start it gives is not known. Not good for facts, other languages, and vectors without fine-tuning.

## What it has read

{markdown(("register", "documents", "licences"), licences)}

Public-domain books, an extract of English Wikipedia, textbooks, documentation and source code, mostly Python;
what stands in common evaluation sets was taken out. Books are old and so are some of their views, which the
model may repeat.
"""


def phases_of(steps: Sequence[Mapping[str, Any]], docs: Path) -> list[tuple[str, ...]]:
    """A row a phase."""
    rows: list[tuple[str, ...]] = []
    done = 0
    for stretch, name in dict.fromkeys((step["stretch"], step["phase"]) for step in steps):
        recipe = json.loads((docs / recipe_name(stretch)).read_text())
        length = next(phase["seq_len"] for phase in recipe["phases"] if phase["name"] == name)
        own = [step for step in steps if (step["stretch"], step["phase"]) == (stretch, name)]
        tail = own[-max(1, len(own) // 20) :]
        loss = sum(step["loss"] for step in tail) / len(tail)
        rate = f"{own[-1]['mask_rate']:.0%}"
        rows.append((str(stretch), name, f"{own[-1]['tokens'] - done:,}", f"{length:,}", rate, f"{loss:.2f}"))
        done = own[-1]["tokens"]
    return rows


def quality(evaluation: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A row a register, and one for all."""
    found = {**evaluation["sources"], "all": evaluation}
    return [(name, f"{each['loss']:.2f}", f"{each['accuracy']:.0%}") for name, each in found.items()]


def page(name: str, folder: Path) -> str:
    """What stands in docs beside the run's files."""
    text = (folder / "README.md").read_text(encoding="utf-8").split("## How it was trained", 1)[1]
    return (
        f"""# The run behind {name}

The model's card, `src/modernbert/bundled/{name}/README.md`, says what it is good for. Here are
`journal.jsonl.gz`, a line a step; `evaluations.jsonl`; a recipe for each stretch; and [what it has
read](sources.md).

![Loss, accuracy, rate and speed by tokens](curves.png)

## How it was trained{text.split("## What it has read")[0]}""".rstrip()
        + "\n"
    )


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line an object."""
    path.write_text(json_lines(rows), encoding="utf-8")


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of such a file."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
