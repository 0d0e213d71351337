"""What a larger model begins with when it is made from a smaller one: held-out loss before any further step.

A model of four layers of 64 learns to guess masked bytes of a text; then it is tiled to other sizes, by our
defaults and in the published way, and asked the same questions. It runs on one thread, so that its numbers
come out the same again.

    python benchmarks/tiling.py corpus/prose.jsonl.zst
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import zstandard
from common import description, write_results
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.presets import modernbert_sized
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.tiling import Tiling, tile_model
from modernbert.text.batch import PackedBatch
from modernbert.training.optim import StableAdamWConfig, set_learning_rate
from modernbert.training.schedule import WarmupStableDecay

TEXT_BYTES, VALID_BYTES = 6_000_000, 200_000
SEQ_LEN, NUM_SEQUENCES, MASK_RATE, MASK = 128, 16, 0.2, 256
NUM_STEPS, PEAK = 1200, 2e-3
Batch = tuple[PackedBatch, Tensor, Tensor]
WAYS: Mapping[str, Tiling] = {
    "as here": Tiling(),
    "edge": Tiling(mode="edge"),
    "layers as published": Tiling(layers="published"),
    "nothing divided": Tiling(divides_copies=False),
    "both as published": Tiling(divides_copies=False, layers="published"),
}


def sized(width: int, num_layers: int) -> EncoderConfig:
    """Heads of 16 and windows of 16 each side."""
    encoder = modernbert_sized(
        num_layers=num_layers, hidden_size=width, num_heads=width // 16, intermediate_size=width * 3 // 2
    )
    blocks = tuple(
        replace(block, attention=replace(block.attention, window_each_side=16 if i % 3 else None))  # pyright: ignore
        for i, block in enumerate(encoder.blocks)
    )
    return replace(encoder, vocab_size=257, pad_token_id=None, blocks=blocks)


SIZES = {
    "twice as wide": sized(128, 4),
    "1.5 times as wide": sized(96, 4),
    "7 layers": sized(64, 7),
    "1.5 times as wide, 7 layers": sized(96, 7),
}


def read_bytes(path: Path) -> Tensor:
    content = b""
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            content += json.loads(line)["text"].encode()
            if len(content) > TEXT_BYTES:
                break
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).long()


def batch(source: Tensor, generator: torch.Generator) -> Batch:
    starts = torch.randint(0, len(source) - SEQ_LEN, (NUM_SEQUENCES,), generator=generator)
    ids = torch.stack([source[start : start + SEQ_LEN] for start in starts]).flatten()
    is_masked = torch.rand(len(ids), generator=generator) < MASK_RATE
    labels = ids[is_masked]
    rows = ids.masked_fill(is_masked, MASK).view(NUM_SEQUENCES, SEQ_LEN)
    return PackedBatch.from_sequences(rows.tolist()), is_masked.nonzero().squeeze(1), labels


def loss(model: nn.Module, given: Batch) -> Tensor:
    pack, positions, labels = given
    return cross_entropy(model(pack, "auto", positions), labels)


@torch.no_grad()
def held_out(model: nn.Module, batches: list[Batch]) -> float:
    model.eval()
    return sum(float(loss(model, each)) for each in batches) / len(batches)


def learn(model: nn.Module, source: Tensor) -> None:
    optimizer, generator = StableAdamWConfig().build(model), torch.Generator().manual_seed(2)
    schedule = WarmupStableDecay(total_tokens=NUM_STEPS, warmup_tokens=20, decay_tokens=NUM_STEPS // 3)
    model.train()
    for step in range(NUM_STEPS):
        optimizer.zero_grad()
        loss(model, batch(source, generator)).backward()
        set_learning_rate(optimizer, PEAK, schedule(step))
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"{step + 1}/{NUM_STEPS} steps", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="JSON lines with a text each, compressed with zstd")
    content = read_bytes(parser.parse_args().text)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    questions = [batch(content[:VALID_BYTES], generator) for _ in range(12)]
    torch.manual_seed(0)
    config = ModelConfig(encoder=sized(64, 4), head=MlmHeadConfig())
    small = Pretrained(config=config, module=config.build())
    learn(small.module, content[VALID_BYTES:])
    before = held_out(small.module, questions)
    print(f"{description()}\n\nthe small model: {before:.3f}; grown to:\n")
    print(f"{'':<30}" + "".join(f"{way:>22}" for way in WAYS))
    results: dict[str, dict[str, float]] = {}
    for name, encoder in SIZES.items():
        results[name] = {
            way: held_out(tile_model(small, encoder, how).module, questions) for way, how in WAYS.items()
        }
        print(f"{name:<30}" + "".join(f"{value:>22.3f}" for value in results[name].values()))
    print(f"\nwrote {write_results('tiling', {'small_model_loss': before, 'losses': results})}")


if __name__ == "__main__":
    main()
