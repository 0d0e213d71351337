"""Seconds of a training step: ModernBERT on packs, BERT as it is usually trained, and BERT's blocks on packs.

The same real texts at their natural lengths for all, cut at 1,024 tokens; 30 % masked; one optimiser:

    modernbert packed   ours, rows of whole texts end to end
    bert padded         transformers' BertForMaskedLM in a plain loop, texts padded to the longest of a batch
    bert full rows      the same, the texts end to end and cut into rows of 1,024, whatever they cut through
    bert packed         BERT's parts here, on the packs: what the blocks cost without padding and with a loss
                        of masked tokens only

In turns, in one process. Before anything is timed BERT's two forms must agree on the loss of the same texts.
Padding is work and never counts as tokens. A table goes to stdout, results to
results/claim_speed-PROCESSOR.json, which claim.py takes for its axis of seconds.

    python benchmarks/claim_speed.py --data runs/shards          minutes; nothing else may run
    python benchmarks/claim_speed.py --data runs/shards --quick  one row, one turn; writes nothing
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from claim_models import MASK_RATE, SEQ_LEN, SIZES, VOCABULARY, Size, bert, modernbert
from common import description, write_results
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM
from transformers.utils import logging as transformers_logging

from modernbert.corpus.masking import Masker
from modernbert.corpus.shards import Shards
from modernbert.corpus.stream import Stream
from modernbert.encoder.mlp import MlpConfig
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.pretrained.folder import read_folder
from modernbert.training.optim import StableAdamWConfig, set_learning_rate
from modernbert.training.pretraining import packed

SEED, IGNORED, LEARNING_RATE = 17, -100, 1e-4
LOSS_TOLERANCE = 1e-4  # fp32, two orders of summation
WAYS = ("modernbert packed", "bert padded", "bert full rows", "bert packed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """A batch of masked sequences, and what stood at `positions` of all of them end to end."""

    sequences: list[np.ndarray]
    positions: Tensor
    labels: Tensor

    @property
    def num_tokens(self) -> int:
        """Real ones."""
        return sum(map(len, self.sequences))


def packed_loss(model: nn.Module, texts: Texts) -> Tensor:
    """The mean over masked tokens; ours."""
    batch = packed(np.concatenate(texts.sequences), [len(each) for each in texts.sequences])
    found = cast(MaskedLanguageModel, model).loss(batch, texts.positions, texts.labels)
    return found.loss / len(texts.labels)


def padded_loss(model: nn.Module, texts: Texts) -> Tensor:
    """The same; transformers', on a rectangle with its mask."""
    longest = max(map(len, texts.sequences))
    is_real = torch.tensor([[True] * len(each) + [False] * (longest - len(each)) for each in texts.sequences])
    input_ids = torch.zeros(is_real.shape, dtype=torch.long)
    input_ids[is_real] = torch.from_numpy(np.concatenate(texts.sequences))
    flat = torch.full((texts.num_tokens,), IGNORED)
    flat[texts.positions] = texts.labels
    labels = torch.full_like(input_ids, IGNORED)
    labels[is_real] = flat
    return model(input_ids=input_ids, attention_mask=is_real.long(), labels=labels).loss


class Way:
    """A model, its optimiser and its batches; `seconds` has one entry a turn."""

    def __init__(
        self, model: nn.Module, loss: Callable[[nn.Module, Texts], Tensor], batches: Sequence[Texts]
    ) -> None:
        self.model, self.loss, self.batches = model.train(), loss, batches
        self.optimizer = StableAdamWConfig().build(model)
        set_learning_rate(self.optimizer, LEARNING_RATE, 1.0)
        self.seconds: list[float] = []

    @property
    def num_tokens(self) -> int:
        """Real tokens of a turn."""
        return sum(each.num_tokens for each in self.batches)

    def take_turn(self) -> None:
        """A step for each batch."""
        start = time.perf_counter()
        for texts in self.batches:
            self.step(texts)
        self.seconds.append(time.perf_counter() - start)

    def step(self, texts: Texts) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.model, texts).backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1, help="as many as claim.py trained with")
    parser.add_argument("--rows", type=int, default=8, help="packed rows that make a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one row, one turn; writes nothing")
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    shards = Shards.open(args.data)
    num_rows, num_turns = (1, 1) if args.quick else (args.rows, args.turns)
    sizes = {size.name: measure(size, shards, num_rows, num_turns) for size in SIZES}
    print(f"{description()}\n")
    print("| size | way | real tokens/s | slowest turn | seconds by ours | padding |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in sizes.items():
        for way, rate in found["tokens_per_second"].items():
            ratio = found["tokens_per_second"][WAYS[0]] / rate
            padding = found["padding"] if way == "bert padded" else 0.0
            slowest = found["num_tokens"][way] / max(found["seconds"][way])
            print(f"| {name} | {way} | {rate:,.0f} | {slowest:,.0f} | {ratio:.2f}x | {padding:.0%} |")
    if not args.quick:
        print(f"\nwrote {write_results('claim_speed', {'sizes': sizes})}")


def measure(size: Size, shards: Shards, num_rows: int, num_turns: int) -> dict[str, Any]:
    """Tokens a second of each way, medians over turns, and the share of padding in padded batches."""
    rows = read_rows(size, shards, num_rows)
    batches = batches_of(rows, size, shards)
    theirs, ours = berts(size)
    first = batches["bert padded"][0]
    losses = [padded_loss(theirs, first).item(), packed_loss(ours, first).item()]
    if abs(losses[0] - losses[1]) > LOSS_TOLERANCE:
        sys.exit(f"BERT's two forms do not agree on the first loss ({losses}): nothing was measured")
    torch.manual_seed(SEED)
    ways = {
        "modernbert packed": Way(modernbert(size).build(), packed_loss, batches["packed"]),
        "bert padded": Way(theirs, padded_loss, batches["bert padded"]),
        "bert full rows": Way(berts(size)[0], padded_loss, batches["bert full rows"]),
        "bert packed": Way(ours, packed_loss, batches["packed"]),
    }
    for way in ways.values():
        way.step(way.batches[0])
    for turn in range(num_turns):
        for way in ways.values():
            way.take_turn()
        last = "  ".join(f"{name} {way.seconds[-1]:.1f} s" for name, way in ways.items())
        print(f"{size.name}: {turn + 1}/{num_turns}  {last}", file=sys.stderr, flush=True)
    lengths = [list(map(len, each.sequences)) for each in batches["bert padded"]]
    return {
        "tokens_per_second": {n: way.num_tokens / statistics.median(way.seconds) for n, way in ways.items()},
        "padding": 1.0 - sum(map(sum, lengths)) / sum(max(each) * len(each) for each in lengths),
        "num_tokens": {name: way.num_tokens for name, way in ways.items()},
        "num_steps": {name: len(way.batches) for name, way in ways.items()},
        "seconds": {name: way.seconds for name, way in ways.items()},
    }


def berts(size: Size) -> tuple[BertForMaskedLM, MaskedLanguageModel]:
    """transformers' BERT of the size with as many parameters, and our reading of the same weights."""
    mlp = cast(MlpConfig, cast(Any, bert(size).encoder.blocks[0]).mlp)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=mlp.intermediate_size,
        max_position_embeddings=SEQ_LEN,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    torch.manual_seed(SEED)
    theirs = BertForMaskedLM(config)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = read_folder(Path(folder), dtype=torch.float32).module
        for parameter in ours.parameters():
            parameter.data = parameter.data.clone()  # out of the file, which goes away
    return theirs, cast(MaskedLanguageModel, ours)


def read_rows(size: Size, shards: Shards, num_rows: int) -> list[list[np.ndarray]]:
    """The first rows of the stream, each as its sequences."""
    around = shards.tokenizer().template.single
    stream = Stream(
        shards,
        seq_len=SEQ_LEN,
        row_tokens=size.row_tokens,
        prefix=around.prefix.token_ids,
        suffix=around.suffix.token_ids,
        seed=SEED,
    )
    step, _ = next(stream.steps(lambda tokens: num_rows))
    return [np.split(row.token_ids, np.cumsum(row.lengths)[:-1]) for row in step.rows]


def batches_of(rows: Sequence[list[np.ndarray]], size: Size, shards: Shards) -> dict[str, list[Texts]]:
    """The same tokens in three layouts: whole rows, texts in a random order, and rows cut anywhere."""
    masker = Masker.of(shards.tokenizer())
    count = size.row_tokens // SEQ_LEN
    texts = [text for row in rows for text in row]
    order = np.random.default_rng(SEED).permutation(len(texts))
    shuffled = [texts[place] for place in order]
    end_to_end = np.concatenate(shuffled)
    full = list(end_to_end[: len(end_to_end) // SEQ_LEN * SEQ_LEN].reshape(-1, SEQ_LEN))
    return {
        "packed": [masked(row, masker) for row in rows],
        "bert padded": [masked(shuffled[i : i + count], masker) for i in range(0, len(shuffled), count)],
        "bert full rows": [masked(full[i : i + count], masker) for i in range(0, len(full), count)],
    }


def masked(sequences: Sequence[np.ndarray], masker: Masker) -> Texts:
    lengths = [len(each) for each in sequences]
    found = masker.mask(np.concatenate(sequences), lengths, rate=MASK_RATE, seed=(SEED,))
    return Texts(
        sequences=np.split(found.token_ids, np.cumsum(lengths)[:-1]),
        positions=torch.from_numpy(found.positions),
        labels=torch.from_numpy(found.labels),
    )


if __name__ == "__main__":
    main()
