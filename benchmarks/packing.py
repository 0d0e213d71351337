"""How full are the rows that a model learns from, and how fast do they come?

    python benchmarks/packing.py SHARDS
    python benchmarks/packing.py SHARDS --settings 1024/16384 --mask-rate 0.15

Goes once through the documents of a folder of shards, for each length of sequences and of rows. "full" is the
share of places that hold tokens, "in turn" the same if rows took shuffled pieces as they come, without
a choice. Pieces a second tell what each process spends on the order of all processes. Tokens a second are
those of one process that computes the order, that reads every row too, and that masks it too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from common import description, write_results

from modernbert.corpus.masking import Masker
from modernbert.corpus.shards import Shards
from modernbert.corpus.stream import Piece, Step, Stream
from modernbert.progress import progress

SETTINGS = ("1024/1024", "1024/8192", "1024/16384", "8192/8192", "8192/16384")
STEP_TOKENS = 65_536
# No row falls to the last of so many processes, so that it computes the order and reads no tokens.
MANY = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="SEQ_LEN/ROW_TOKENS")
    parser.add_argument("--mask-rate", type=float, default=0.3)
    arguments = parser.parse_args()
    shards = Shards.open(arguments.shards)
    masker = Masker.of(shards.tokenizer())
    print(description())
    sources = print_sources(shards)
    print(
        f"\n{'sequence/row':>13} {'full':>8} {'in turn':>8} {'pieces/s':>10} {'tokens/s: order':>16}", end=""
    )
    print(f" {'read':>13} {'masked':>13} {'state':>7}")
    points = []
    for setting in progress(arguments.settings, label="packing", total=len(arguments.settings)):
        seq_len, row_tokens = map(int, setting.split("/"))
        points.append(measure(shards, masker, seq_len, row_tokens, arguments.mask_rate))
        print_row(points[-1])
    if tuple(arguments.settings) == SETTINGS:
        print(f"\nwritten: {write_results('packing', {'sources': sources, 'points': points})}")


def print_sources(shards: Shards) -> dict[str, dict[str, int]]:
    """Documents and tokens of each source."""
    print(f"\n{'source':>13} {'documents':>10} {'tokens':>12}")
    found = {}
    for source in shards.sources:
        lengths = shards.lengths(source)
        found[source] = {"documents": len(lengths), "tokens": int(lengths.sum())}
        print(f"{source:>13} {len(lengths):>10,} {lengths.sum():>12,}")
    return found


def measure(
    shards: Shards, masker: Masker, seq_len: int, row_tokens: int, mask_rate: float
) -> dict[str, Any]:
    """The documents once for counting, and timed: their order alone, read, and read and masked."""
    rows: list[tuple[Piece, ...]] = []
    num_tokens, last_state = 0, {}
    for step, state in steps(shards, seq_len, row_tokens, rank=MANY - 1, world_size=MANY):
        rows += step.pieces
        num_tokens += step.num_tokens
        last_state = state
    order_s = seconds_of(steps(shards, seq_len, row_tokens, rank=MANY - 1, world_size=MANY))
    read_s = seconds_of(steps(shards, seq_len, row_tokens))
    masked_s = seconds_of(
        masker.mask(row.token_ids, row.lengths, rate=mask_rate, seed=(0, row.number))
        for step, _ in steps(shards, seq_len, row_tokens)
        for row in step.rows
    )
    specials = num_specials(shards)
    lengths = [piece.end - piece.start + specials for piece in chain.from_iterable(rows)]
    return {
        "seq_len": seq_len,
        "row_tokens": row_tokens,
        "num_rows": len(rows),
        "num_pieces": len(lengths),
        "num_tokens": num_tokens,
        "efficiency": num_tokens / (len(rows) * row_tokens),
        "efficiency_in_turn": num_tokens / (rows_in_turn(lengths, row_tokens) * row_tokens),
        "pieces_per_s": len(lengths) / order_s,
        "order_tokens_per_s": num_tokens / order_s,
        "read_tokens_per_s": num_tokens / read_s,
        "masked_tokens_per_s": num_tokens / masked_s,
        "state_bytes": len(json.dumps(last_state)),
    }


def steps(
    shards: Shards, seq_len: int, row_tokens: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[Step, dict[str, Any]]]:
    """As many tokens as the shards hold, and so about one epoch."""
    template = shards.tokenizer().template.single
    stream = Stream(
        shards,
        seq_len=seq_len,
        row_tokens=row_tokens,
        prefix=template.prefix.token_ids,
        suffix=template.suffix.token_ids,
        seed=0,
        rank=rank,
        world_size=world_size,
    )
    left = sum(int(shards.lengths(source).sum()) for source in shards.sources)
    for step, state in stream.steps(lambda tokens: max(1, STEP_TOKENS // row_tokens)):
        yield step, state
        left -= step.num_tokens
        if left <= 0:
            return


def seconds_of(items: Iterable[Any]) -> float:
    """What making the items takes."""
    start = time.perf_counter()
    for _ in items:
        pass
    return time.perf_counter() - start


def rows_in_turn(lengths: list[int], row_tokens: int) -> int:
    """Rows that would be needed if each took the next pieces until one does not fit."""
    num_rows, room = 1, row_tokens
    for length in np.random.default_rng(0).permutation(lengths).tolist():  # the rows have sorted them
        if length > room:
            num_rows, room = num_rows + 1, row_tokens
        room -= length
    return num_rows


def num_specials(shards: Shards) -> int:
    return shards.tokenizer().template.single.num_specials


def print_row(point: dict[str, Any]) -> None:
    setting = f"{point['seq_len']}/{point['row_tokens']}"
    print(
        f"{setting:>13} {point['efficiency']:>8.2%} {point['efficiency_in_turn']:>8.2%} "
        f"{point['pieces_per_s']:>10,.0f} {point['order_tokens_per_s']:>16,.0f} "
        f"{point['read_tokens_per_s']:>13,.0f} {point['masked_tokens_per_s']:>13,.0f} "
        f"{point['state_bytes']:>7,}",
        flush=True,
    )


if __name__ == "__main__":
    main()
