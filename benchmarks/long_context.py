"""Does a model use a long context? The loss on the last 512 tokens of a window, by how much stands before.

    context    0    [CLS] 510 tokens [SEP]
             128    [CLS] 128 tokens, then the same 510 [SEP]
             ...
           7,680    [CLS] 7,680 tokens, then the same 510 [SEP]      8,192 tokens in all

The same 15 % of the 510 tokens are masked every time, and nothing before them is. Windows come from documents
that are long enough, from each source in turn and from all its documents before a second one of the same; no
token is asked for twice. Differences are to no context, window by window, with their standard error.

    python benchmarks/long_context.py --model runs/nano/final --data runs/shards-valid

Writes results/long_context-PROCESSOR.json and a chart; with --out FILE.json, there. A model whose longest
sequence is shorter is asked with less context.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import description, machine, results_path
from torch.nn.functional import cross_entropy

from modernbert import bundled
from modernbert.corpus.masking import Masked, Masker
from modernbert.corpus.shards import Shards
from modernbert.files import write_atomic
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.plots import Panel, curves
from modernbert.pretrained.folder import Pretrained, read_folder
from modernbert.progress import progress
from modernbert.text.packing import pack_by_budget
from modernbert.text.tokenizer import Tokenizer
from modernbert.training.pretraining import packed

CONTEXTS = (0, 128, 512, 1024, 2048, 4096, 7680)
END_TOKENS = 512  # [CLS] and [SEP] among them
MASK_RATE, SEED = 0.15, 17
STRIDE = 2048  # between windows of a document: contexts may overlap, ends do not
BUDGET_TOKENS = 8192
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of a document: its last tokens are masked and asked for, the others are context."""

    source: str
    document: int
    context: np.ndarray
    end: Masked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model folder; the bundled model without it")
    parser.add_argument("--data", type=Path, required=True, help="shards that the model did not learn from")
    parser.add_argument("--windows", type=int, default=100, help="at most, over all sources")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="a JSON file; the chart goes beside it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = args.model or bundled_model()
    pretrained = read_folder(folder, dtype=torch.float32)
    model, tokenizer = cast(MaskedLanguageModel, pretrained.module).eval(), tokenizer_of(pretrained, folder)
    shards = Shards.open(args.data)
    shards.require_tokenizer(tokenizer)
    contexts = contexts_for(pretrained, folder)
    windows = find_windows(shards, tokenizer, contexts[-1], args.windows)
    losses = np.array(
        [ask(model, tokenizer, each, contexts) for each in progress(windows, label="windows", unit="window")]
    )
    results = {
        "model": "/".join(folder.parts[-2:]),
        "end_tokens": END_TOKENS,
        "mask_rate": MASK_RATE,
        "contexts": contexts,
        "sources": summaries(windows, losses),
    }
    path = args.out or results_path("long_context")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    draw(results, path.with_suffix(".png"))
    print(f"{description()}\n\n{table(results)}\n\nwrote {path} and its chart")


def bundled_model() -> Path:
    names = bundled.names()
    return bundled.path(names[0]) if names else sys.exit("no model is bundled yet: name a folder by --model")


def tokenizer_of(pretrained: Pretrained, folder: Path) -> Tokenizer:
    return pretrained.tokenizer or sys.exit(f"{folder} has no tokenizer: save the model with one")


def contexts_for(pretrained: Pretrained, folder: Path) -> list[int]:
    """Those that the model is meant for."""
    longest = pretrained.config.encoder.max_positions
    contexts = [each for each in CONTEXTS if each + END_TOKENS <= longest]
    if len(contexts) < 2:
        sys.exit(f"{folder} reads {longest} tokens at most: there is no context to compare")
    return contexts


def find_windows(shards: Shards, tokenizer: Tokenizer, longest: int, most: int) -> list[Window]:
    """Windows by turns: of each source, of each long document; exits where no document is long enough."""
    masker, around = Masker.of(tokenizer), tokenizer.template.single
    num_asked = END_TOKENS - len(around.prefix.token_ids) - len(around.suffix.token_ids)
    size = longest + num_asked
    places = {source: window_places(shards.lengths(source), size) for source in shards.sources}
    turns = sorted(
        (turn, source, document, start)
        for source, found in places.items()
        for turn, (document, start) in enumerate(found)
    )
    if not turns:
        sys.exit(f"no document of {shards.folder} has {size} tokens: name shards of longer ones")
    windows = []
    for number, (_, source, document, start) in enumerate(turns[:most]):
        tokens = shards.tokens(source, document, start, start + size)
        end = masker.mask(tokens[longest:], (num_asked,), rate=MASK_RATE, seed=(SEED, number))
        windows.append(Window(source=source, document=document, context=tokens[:longest], end=end))
    return windows


def window_places(lengths: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Documents and starts: the first window of every long document, then the second ones, and so on."""
    found = [
        (number, document, start)
        for document in np.flatnonzero(lengths >= size).tolist()
        for number, start in enumerate(range(0, int(lengths[document]) - size + 1, STRIDE))
    ]
    return [(document, start) for _, document, start in sorted(found)]


@torch.inference_mode()
def ask(
    model: MaskedLanguageModel, tokenizer: Tokenizer, window: Window, contexts: Sequence[int]
) -> list[float]:
    """The mean loss of the window's masked tokens with each context."""
    around = tokenizer.template.single
    prefix, suffix = around.prefix.token_ids, around.suffix.token_ids
    sequences = [
        np.concatenate(
            [prefix, window.context[len(window.context) - context :], window.end.token_ids, suffix]
        ).astype(np.int64)
        for context in contexts
    ]
    losses = [0.0] * len(contexts)
    for pack in pack_by_budget(list(map(len, sequences)), BUDGET_TOKENS):
        batch = packed(
            np.concatenate([sequences[place] for place in pack]), [len(sequences[place]) for place in pack]
        )
        firsts = batch.cu_seqlens.tolist()
        positions = np.concatenate(
            [
                first + len(prefix) + contexts[place] + window.end.positions
                for first, place in zip(firsts, pack, strict=False)
            ]
        )
        logits = model(batch, positions=torch.from_numpy(positions)).unflatten(0, (len(pack), -1))
        for place, each in zip(pack, logits, strict=True):
            losses[place] = float(cross_entropy(each, torch.from_numpy(window.end.labels)))
    return losses


def summaries(windows: Sequence[Window], losses: np.ndarray) -> dict[str, Any]:
    """By source and over all: losses by context, and differences to none with their standard error."""
    sources = np.array([window.source for window in windows])
    found = {}
    for name in (ALL, *sorted(set(sources.tolist()))):
        chosen = losses if name == ALL else losses[sources == name]
        gained = chosen - chosen[:, :1]
        is_enough = len(chosen) > 1
        found[name] = {
            "num_windows": len(chosen),
            "num_documents": len(
                {(each.source, each.document) for each in windows if name in (ALL, each.source)}
            ),
            "losses": chosen.mean(axis=0).tolist(),
            "differences": gained.mean(axis=0).tolist(),
            "standard_errors": (gained.std(axis=0, ddof=1) / len(chosen) ** 0.5).tolist()
            if is_enough
            else None,
        }
    return found


def table(results: dict[str, Any]) -> str:
    contexts = results["contexts"]
    lines = [f"{'context':<22}" + "".join(f"{each:>9,}" for each in contexts)]
    for name, each in results["sources"].items():
        lines.append(
            f"{name + ', ' + str(each['num_windows']):<22}" + "".join(f"{x:>9.3f}" for x in each["losses"])
        )
        lines.append(f"{'  to no context':<22}" + "".join(f"{x:>+9.3f}" for x in each["differences"]))
        if each["standard_errors"]:
            lines.append(f"{'  +-':<22}" + "".join(f"{x:>9.3f}" for x in each["standard_errors"]))
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Losses and differences, a line for each source; 0 has its place on the axis, so it is linear."""
    lines = {
        kind: {
            name: list(zip(results["contexts"], each[kind], strict=True))
            for name, each in results["sources"].items()
        }
        for kind in ("losses", "differences")
    }
    panels = [
        Panel(title="loss of the same masked tokens", lines=lines["losses"], unit="nats a masked token"),
        Panel(title="what context brings", lines=lines["differences"], unit="nats, to no context"),
    ]
    title = f"The last {END_TOKENS} tokens, by the tokens seen before them ({results['model']})"
    curves(panels, path, title=title, x_label="tokens of context")


if __name__ == "__main__":
    main()
