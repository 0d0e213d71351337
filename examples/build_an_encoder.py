"""Build an encoder from parts: the layer pattern is a loop, and any part may differ from layer to layer.

    python examples/build_an_encoder.py

The model has random weights; what it shows is how a design is written down, what it costs, and whether other
tools have words for it.
"""

from dataclasses import replace

import torch

from modernbert import (
    PRESETS,
    AttentionConfig,
    EncoderConfig,
    GluConfig,
    LayerNormConfig,
    MlmHeadConfig,
    ModelConfig,
    PackedBatch,
    PreNormConfig,
    RmsNormConfig,
    RotaryConfig,
)
from modernbert.pretrained.folder import describe_layout


def small(norm: LayerNormConfig | RmsNormConfig) -> EncoderConfig:
    """Eight layers; every fourth one sees all of its sequence, the others 65 tokens."""
    everywhere = AttentionConfig(num_heads=4, rotary=RotaryConfig(theta=160_000.0))
    nearby = AttentionConfig(num_heads=4, window_each_side=32, rotary=RotaryConfig(theta=10_000.0))
    blocks = [
        PreNormConfig(
            attention=nearby if i % 4 else everywhere,
            mlp=GluConfig(intermediate_size=384, activation="silu"),
            attention_norm=norm,
            mlp_norm=norm,
        )
        for i in range(8)
    ]
    blocks[0] = replace(blocks[0], attention_norm=None)  # the embeddings have just had theirs
    return EncoderConfig(vocab_size=8_192, hidden_size=256, blocks=tuple(blocks), final_norm=norm)


def main() -> None:
    batch = PackedBatch.from_sequences([[5, 6, 7, 8], [9, 10]])
    for name, config in [
        ("layer norms", small(LayerNormConfig())),
        ("RMS norms", small(RmsNormConfig())),
        ("ettin-17m", PRESETS["ettin-17m"]()),
    ]:
        torch.manual_seed(0)
        encoder = config.build().eval()
        size = sum(parameter.numel() for parameter in encoder.parameters())
        with torch.no_grad():
            hidden = encoder(batch)  # [T, D]
        layout = describe_layout(ModelConfig(encoder=config, head=MlmHeadConfig()))
        print(f"{name:12} {size / 1e6:5.1f} M parameters, {tuple(hidden.shape)}, saved as {layout}")


if __name__ == "__main__":
    main()
