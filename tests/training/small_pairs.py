"""Queries and documents that speak of the same two things in other words, and a tiny model to begin with."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from modernbert.encoder.presets import modernbert_sized
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.tokenizer_training import train_tokenizer

ASKED = ("dog", "car", "tree", "bread", "river", "house", "song", "king", "moon", "ship", "glass", "wool")
TOLD = ("hound", "wheel", "oak", "loaf", "stream", "roof", "tune", "crown", "night", "sail", "pane", "sheep")
FILLING = ("the", "and", "a", "of", "with", "some", "near", "old", "!", ",", ".")


def pairs(num: int, seed: int = 0) -> list[tuple[str, str]]:
    """A query that names two things, and a document of both; after 66 come the same in other words."""
    draw = random.Random(seed)
    chosen = list(itertools.combinations(range(len(ASKED)), 2))
    draw.shuffle(chosen)
    things = itertools.islice(itertools.cycle(chosen), num)
    return [(_text(draw, ASKED, each, 2), _text(draw, TOLD, each, 4)) for each in things]


def sets(num: int, num_negatives: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """The same with documents of others as negatives."""
    found = pairs(num, seed)
    documents = [document for _, document in found]
    return [
        {
            "query": query,
            "positive": document,
            "negatives": [documents[(place + step + 1) % num] for step in range(num_negatives)],
        }
        for place, (query, document) in enumerate(found)
    ]


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_pairs(path: Path, num: int = 198) -> Path:
    return write_lines(path, ({"query": query, "positive": document} for query, document in pairs(num)))


def write_judged(folder: Path, splits: dict[str, range]) -> Path:
    """A folder in the layout of BEIR: 66 documents, and 264 queries, each answered by document i % 66."""
    (folder / "qrels").mkdir(parents=True)
    found = pairs(4 * 66)
    write_lines(
        folder / "corpus.jsonl",
        (
            {"_id": f"d{place}", "title": "told", "text": document}
            for place, (_, document) in enumerate(found[:66])
        ),
    )
    write_lines(
        folder / "queries.jsonl",
        ({"_id": f"q{place}", "text": query} for place, (query, _) in enumerate(found)),
    )
    for split, places in splits.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"q{place}\td{place % 66}\t1" for place in places)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_tiny_encoder(folder: Path) -> Path:
    """Two layers of 32 with a masked-language-model head, untrained."""
    texts = [text for pair in pairs(66) for text in pair]
    tokenizer = train_tokenizer(texts * 3, vocab_size=340)
    rows = -(-tokenizer.vocab_size // 64) * 64
    encoder = modernbert_sized(num_layers=2, hidden_size=32, num_heads=2, intermediate_size=24)
    encoder = replace(encoder, vocab_size=rows, pad_token_id=tokenizer.pad_id)
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, head=MlmHeadConfig())
    write_folder(folder, Pretrained(config=config, module=config.build(), tokenizer=tokenizer))
    return folder


def _text(draw: random.Random, words: tuple[str, ...], places: Iterable[int], num_filling: int) -> str:
    chosen = [words[place] for place in places] + draw.choices(FILLING, k=num_filling)
    draw.shuffle(chosen)
    return " ".join(chosen)
