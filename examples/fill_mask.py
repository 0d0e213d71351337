"""Find the words that fit a mask.

    python examples/fill_mask.py answerdotai/ModernBERT-base "He walked to the [MASK]."
    python examples/fill_mask.py

Without a model, a tiny one with random weights is written to a temporary folder first, to show the whole way
from parts to a folder to an answer. It has learned nothing, so what it says means nothing.
"""

import sys
import tempfile
from pathlib import Path

import torch

import modernbert
from modernbert import AttentionConfig, EncoderConfig, GluConfig, MlmHeadConfig, ModelConfig, PreNormConfig

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIALS, "he", "walked", "to", "the", "market", "bank", "sea", "hill", "."]


def main() -> None:
    text = sys.argv[2] if len(sys.argv) > 2 else "He walked to the [MASK]."
    with tempfile.TemporaryDirectory() as folder:
        name = sys.argv[1] if len(sys.argv) > 1 else write_tiny_model(Path(folder) / "tiny")
        model = modernbert.load(name)
        print(model)
        for fill in model.fill_mask(text, top_k=3):
            print(f"  {fill.score:.3f}  {fill.text}")


def write_tiny_model(folder: Path) -> Path:
    print("no model was named: this one is random, and so are its answers")
    torch.manual_seed(0)
    block = PreNormConfig(attention=AttentionConfig(num_heads=2), mlp=GluConfig(intermediate_size=48))
    encoder = EncoderConfig(vocab_size=len(WORDS), hidden_size=32, blocks=(block, block), max_positions=64)
    config = ModelConfig(encoder=encoder, head=MlmHeadConfig())
    tokenizer = modernbert.Tokenizer({"vocab.txt": "\n".join(WORDS).encode()})
    modernbert.new(config, tokenizer=tokenizer).save(folder)
    return folder


if __name__ == "__main__":
    main()
