"""A corpus that a tiny model can learn, in two sources: a word follows from the one before it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from tests.inference.tiny import byte_level

SENTENCE = "the man woman walked to store bought some bread for Anna worked as a lawyer in Paris and Sofia"
WORDS = SENTENCE.split()


def documents(num: int, seed: int, longest: int) -> list[str]:
    """Texts of 3 to `longest` words; each word has two that may follow it."""
    generator = random.Random(seed)
    found = []
    for _ in range(num):
        place = generator.randrange(len(WORDS))
        words = []
        for _ in range(generator.randint(3, longest)):
            words.append(WORDS[place])
            place = (3 * place + generator.choice((1, 5))) % len(WORDS)
        found.append(" ".join(words) + ".")
    return found


def write_corpus(folder: Path, *, seed: int = 0, num: int = 120) -> list[str]:
    """Two JSONL files, one of short documents and one of long ones; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, longest, count in (("notes", 12, num), ("tales", 300, num // 4)):
        lines = [json.dumps({"text": text}) + "\n" for text in documents(count, seed + longest, longest)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return [str(folder / "notes.jsonl"), str(folder / "tales.jsonl")]


def small_shards(folder: Path, *, seed: int = 0, num: int = 120) -> Shards:
    """The corpus as shards in `folder`/shards."""
    inputs = write_corpus(folder / "text", seed=seed, num=num)
    return write_shards(inputs, folder / "shards", tokenizer=byte_level(), num_workers=1)
