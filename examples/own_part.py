"""A norm, a block and a position scheme of your own in one file: build a model, run it, save it, load it.

    python examples/own_part.py

A part is a frozen dataclass that derives from `Part`: its `kind` is the name it has in a saved model, its
fields are saved beside the weights, and `build` makes its torch module. Nothing is registered: `load` is told
the classes.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import modernbert


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleNormConfig(modernbert.Part):
    """One learned number over the length of the vector (Nguyen and Salazar 2019, arXiv 1910.05895)."""

    kind: ClassVar[str] = "my_scale_norm"
    eps: float = 1e-5

    def build(self, hidden_size: int) -> nn.Module:
        return ScaleNorm(hidden_size, self.eps)


class ScaleNorm(nn.Module):
    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(hidden_size**0.5))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D]
        return self.scale * x / x.norm(dim=-1, keepdim=True).clamp(min=self.eps)


@dataclass(frozen=True, kw_only=True, slots=True)
class SinusoidConfig(modernbert.Part):
    """Positions added to the token vectors as sines and cosines (Vaswani et al. 2017), without weights."""

    kind: ClassVar[str] = "my_sinusoid"
    base: float = 10_000.0

    def build(self, hidden_size: int) -> nn.Module:
        return Sinusoid(hidden_size, self.base)


class Sinusoid(nn.Module):
    def __init__(self, hidden_size: int, base: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.base = base

    def forward(self, batch: modernbert.PackedBatch) -> Tensor:  # a pack -> [T, D]
        pair = torch.arange(0, self.hidden_size, 2, device=batch.position_ids.device)
        angles = batch.position_ids[:, None] * self.base ** -(pair / self.hidden_size)  # [T, D/2]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SandwichConfig(modernbert.Part):
    """A block with a norm before and after each half; what it holds may be anybody's parts."""

    kind: ClassVar[str] = "my_sandwich"
    attention: modernbert.Part
    mlp: modernbert.Part
    norm: modernbert.Part

    def build(self, hidden_size: int) -> nn.Module:
        return Sandwich(self, hidden_size)


class Sandwich(nn.Module):
    def __init__(self, config: SandwichConfig, hidden_size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(config.norm.build(hidden_size) for _ in range(4))
        self.attn = config.attention.build(hidden_size)
        self.mlp = config.mlp.build(hidden_size)

    def forward(self, x: Tensor, batch: modernbert.PackedBatch, backend: str) -> Tensor:  # [T, D] -> [T, D]
        x = x + self.norms[1](self.attn(self.norms[0](x), batch, backend))
        return x + self.norms[3](self.mlp(self.norms[2](x)))


OWN_PARTS = [ScaleNormConfig, SinusoidConfig, SandwichConfig]


def own_config() -> modernbert.ModelConfig:
    """Three blocks of which every second one is local, as data."""
    blocks = tuple(
        SandwichConfig(
            attention=modernbert.AttentionConfig(num_heads=4, window_each_side=16 if index % 2 else None),
            mlp=modernbert.GluConfig(intermediate_size=96),
            norm=ScaleNormConfig(),
        )
        for index in range(3)
    )
    encoder = modernbert.EncoderConfig(
        vocab_size=1000,
        hidden_size=64,
        blocks=blocks,
        embedding=modernbert.EmbeddingConfig(norm=ScaleNormConfig(), positions=SinusoidConfig()),
        final_norm=ScaleNormConfig(),
    )
    return modernbert.ModelConfig(encoder=encoder, head=modernbert.EmbedHeadConfig(is_normalized=True))


def main() -> None:
    torch.manual_seed(0)
    config = own_config()
    fresh = modernbert.new(config, device="cpu")
    batch = modernbert.PackedBatch.from_sequences([[5, 17, 300], [9, 9, 2, 41, 7], list(range(200))])
    with torch.inference_mode():
        vectors = fresh.module(batch)  # one for each sequence
    print(f"{len(vectors)} texts, {batch.num_tokens} tokens, vectors of {vectors.shape[1]} numbers")

    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "my-model")
        fresh.save(folder)
        model = modernbert.load(folder, parts=OWN_PARTS, dtype="float32", device="cpu")
    with torch.inference_mode():
        is_same = torch.allclose(vectors, model.module(batch), atol=1e-6) and model.config == config
    print(f"saved and loaded: {'the same' if is_same else 'other'} numbers and parts")


if __name__ == "__main__":
    main()
