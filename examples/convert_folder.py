"""Write one model in the three forms there are, and look at what is in each.

    python examples/convert_folder.py

The model is tiny and random. The same calls convert a real folder, or a checkpoint of the research code.
"""

import json
import tempfile
from pathlib import Path

import torch

from modernbert import AttentionConfig, EncoderConfig, GluConfig, MlmHeadConfig, ModelConfig, PreNormConfig
from modernbert import RotaryConfig as Rotary
from modernbert.pretrained.convert import convert
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        write_folder(place / "model", tiny_model())
        show(place / "model")

        convert(place / "model", place / "parts", to="parts")
        show(place / "parts")

        convert(place / "model", place / "latest-rank0.pt", to="research")
        print("latest-rank0.pt, a checkpoint of the research code")

        one, other = (read_folder(place / name).module.state_dict() for name in ("model", "parts"))
        print("same tensors:", all(torch.equal(one[name], other[name]) for name in one))


def tiny_model() -> Pretrained:
    torch.manual_seed(0)
    attentions = [AttentionConfig(num_heads=2, rotary=Rotary(theta=160_000.0))]
    attentions += 2 * [AttentionConfig(num_heads=2, window_each_side=64, rotary=Rotary(theta=10_000.0))]
    blocks = [PreNormConfig(attention=a, mlp=GluConfig(intermediate_size=48)) for a in attentions]
    blocks[0] = PreNormConfig(attention=attentions[0], mlp=blocks[0].mlp, attention_norm=None)
    encoder = EncoderConfig(vocab_size=100, hidden_size=32, blocks=tuple(blocks))
    config = ModelConfig(encoder=encoder, head=MlmHeadConfig())
    return Pretrained(config=config, module=config.build())


def show(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    print(f"{folder.name}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"  model_type {config['model_type']}, keys: {', '.join(list(config)[:6])} ...")


if __name__ == "__main__":
    main()
