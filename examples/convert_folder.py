"""Write one model in the three forms there are, and look at what is in each.

    python examples/convert_folder.py

The model is tiny and random. The same calls convert a real folder, or a checkpoint of the research code.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from modernbert import PRESETS, MlmHeadConfig, ModelConfig
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
    encoder = PRESETS["ettin-17m"]()
    encoder = replace(encoder, vocab_size=100, blocks=encoder.blocks[:4], pad_token_id=0)
    config = ModelConfig(encoder=encoder, head=MlmHeadConfig())
    return Pretrained(config=config, module=config.build())


def show(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    print(f"{folder.name}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"  model_type: {config['model_type']}")
    if config["model_type"] == "modernbert":
        print(f"  older keys: global_rope_theta {config['global_rope_theta']:.0f}")
        print(f"  newer keys: layer_types {', '.join(config['layer_types'])}")
    else:
        print(f"  the first block: {json.dumps(config['model']['encoder']['blocks'][0])[:60]} ...")


if __name__ == "__main__":
    main()
