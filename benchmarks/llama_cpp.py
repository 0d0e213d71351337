"""llama.cpp as a side of inference.py: the model folder as a GGUF file, run by the package xllamacpp.

It gives the mean of a text's hidden states: a vector a token would have to pass through JSON, which takes
longer than the model. The tokenizer in the file is an empty shell, as texts come as token ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

# Of a call: what the cases have, but for the longest, for which its buffers take too much memory.
MOST_TOKENS, MOST_TEXTS = 4096, 32
# Names of llama.cpp's formats, and what each stands for in a table.
FORMATS = {"F32": "fp32", "BF16": "bf16", "Q8_0": "int8"}


@dataclass(kw_only=True)
class LlamaCpp:
    """A server inside this process, asked without HTTP; matrices in one of FORMATS."""

    folder: Path
    format: str = "F32"
    is_pooled: bool = True

    def __post_init__(self) -> None:
        import xllamacpp

        self.name = f"llama.cpp {FORMATS[self.format]}"
        self.precision = "int8" if self.format == "Q8_0" else "full"
        wanted: Any = xllamacpp.CommonParams()
        wanted.model.path = str(write_gguf(self.folder, self.format))
        wanted.embedding, wanted.embd_normalize = True, -1
        wanted.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = MOST_TOKENS
        wanted.n_parallel, wanted.kv_unified = MOST_TEXTS, True
        wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = torch.get_num_threads()
        wanted.verbosity = 0
        self.server: Any = xllamacpp.Server(wanted)

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Means of the hidden states of each text, [S, D]."""
        answer = self.server.handle_embeddings({"input": sequences})
        found = answer if isinstance(answer, dict) else json.loads(answer)
        rows = sorted(found["data"], key=lambda row: row["index"])
        return torch.tensor([row["embedding"] for row in rows]).reshape(len(sequences), -1)


def can_run(folder: Path) -> bool:
    """Whether the file can be written here: of ModernBERT's own kind."""
    return json.loads((folder / "config.json").read_text())["model_type"] == "modernbert"


def write_gguf(folder: Path, kind: str) -> Path:
    """The folder's model in llama.cpp's form, in the folder; kept for the next side."""
    import gguf

    path = folder / f"model-{kind}.gguf"
    if path.exists():
        return path
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    writer: Any = gguf.GGUFWriter(str(path), "modern-bert")
    add_sizes(writer, config)
    add_empty_tokenizer(writer, config["vocab_size"])
    names: Any = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MODERN_BERT, config["num_hidden_layers"])
    target: Any = gguf.GGMLQuantizationType[kind]
    for name, tensor in load_file(folder / "model.safetensors").items():
        numbers: np.ndarray = tensor.float().numpy()
        written = names.get_name(name.removeprefix("model."), (".weight", ".bias"))
        if tensor.ndim == 2 and kind != "F32":
            writer.add_tensor(written, gguf.quants.quantize(numbers, target), raw_dtype=target)
        else:
            writer.add_tensor(written, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_sizes(writer: Any, config: dict[str, Any]) -> None:
    """What a ModernBERT of this config.json is, in GGUF's keys."""
    kinds, rotary = config["layer_types"], config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_causal_attention(False)
    writer.add_sliding_window(config["local_attention"])
    every = kinds.index("full_attention", 1) if "sliding_attention" in kinds else 1
    writer.add_uint32("modern-bert.attention.sliding_window_pattern", every)
    writer.add_rope_freq_base(rotary["full_attention"]["rope_theta"])
    writer.add_float32("modern-bert.rope.freq_base_swa", rotary["sliding_attention"]["rope_theta"])


def add_empty_tokenizer(writer: Any, vocab_size: int) -> None:
    """As many tokens as ids; none of them is ever written out."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{i}" for i in range(vocab_size)])
    writer.add_token_types([1] * vocab_size)
    writer.add_token_merges(["t 0"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_sep_token_id):
        add(0)
    writer.add_pad_token_id(0)
