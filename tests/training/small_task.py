"""Reviews that a tiny model learns in seconds, and the tiny model to begin with."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import torch

from modernbert.encoder.presets import modernbert_sized
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.tokenizer_training import train_tokenizer

GOOD, BAD = ("fine", "lovely", "great", "bright"), ("dull", "poor", "awful", "grey")
FILLING = (
    *("the", "film", "and", "its", "music", "were", "on", "screen", "for", "two", "hours"),
    *("with", "a", "story", "about", "some", "people"),
)


def reviews(num: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with one telling word each, and what it tells."""
    draw = random.Random(seed)
    rows = []
    for _ in range(num):
        label = draw.choice(("good", "bad"))
        words = [draw.choice(FILLING) for _ in range(draw.randint(2, 12))]
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if label == "good" else BAD))
        rows.append((" ".join(words), label))
    return rows


def write_reviews(path: Path, num: int = 120, seed: int = 0) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("text", "label"))
        table.writerows(reviews(num, seed))
    return path


def write_tiny_encoder(folder: Path) -> Path:
    """Three layers of 32 with a masked-language-model head, untrained."""
    tokenizer = train_tokenizer([text for text, _ in reviews(400)] * 3, vocab_size=320)
    rows = -(-tokenizer.vocab_size // 64) * 64
    encoder = modernbert_sized(num_layers=3, hidden_size=32, num_heads=2, intermediate_size=24)
    encoder = replace(encoder, vocab_size=rows, pad_token_id=tokenizer.pad_id)
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, head=MlmHeadConfig())
    write_folder(folder, Pretrained(config=config, module=config.build(), tokenizer=tokenizer))
    return folder
