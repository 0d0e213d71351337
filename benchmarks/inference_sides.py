"""The sides of inference.py: one model folder, run by this package and by what else a user would pick.

Every side takes lists of token ids and gives the hidden states of the real tokens, [T, D], in float32. What
pads does so inside, as it must for its users. All run with as many threads as torch has.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from llama_cpp import LlamaCpp, can_run
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

import modernbert
from modernbert.text.batch import PackedBatch

CPU = torch.device("cpu")
OPSET = 20
HINTS = {"f32": "fp32", "bf16": "bf16"}  # OpenVINO's names and ours
MAX_BATCH = 512


class Side(Protocol):
    """A way to run the model. `precision` is "full" (fp32 or bf16) or "int8": like is compared with like.

    `is_pooled`: it gives the mean of each text, [S, D].
    """

    name: str
    precision: str
    is_pooled: bool

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        ...


@dataclass(kw_only=True)
class Ours:
    """The package: real tokens end to end through Encoder."""

    folder: Path
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    is_int8: bool = False
    is_pooled: bool = False

    def __post_init__(self) -> None:
        self.name = "modernbert int8" if self.is_int8 else f"modernbert {short(self.dtype)}"
        self.precision = "int8" if self.is_int8 else "full"
        dtype = "int8" if self.is_int8 else self.dtype
        self.encoder = modernbert.load(self.folder, dtype=dtype, device=self.device).encoder

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        return self.encoder(PackedBatch.from_sequences(sequences).to(self.device)).float()


@dataclass(kw_only=True)
class Transformers:
    """transformers with SDPA: a padded batch and its mask, as a tokenizer gives them."""

    folder: Path
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    is_pooled: bool = False

    def __post_init__(self) -> None:
        self.name, self.precision = f"transformers {short(self.dtype)}", "full"
        self.model = theirs(self.folder).to(self.device, self.dtype)

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        ids, mask = (each.to(self.device) for each in padded(sequences))
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden[mask.bool()].float()


@dataclass(kw_only=True)
class OnnxRuntime:
    """ONNX Runtime on the exported transformers model, with all of its graph optimisations."""

    path: Path
    is_int8: bool = False
    is_pooled: bool = False

    def __post_init__(self) -> None:
        import onnxruntime

        self.name = f"ONNX Runtime {'int8' if self.is_int8 else 'fp32'}"
        self.precision = "int8" if self.is_int8 else "full"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session: Any = onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        ids, mask = padded(sequences)
        (hidden,) = self.session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        return torch.from_numpy(hidden)[mask.bool()]


@dataclass(kw_only=True)
class OpenVino:
    """OpenVINO on the same file, told to answer one batch at a time with all threads."""

    path: Path
    precision_hint: str = "f32"
    is_pooled: bool = False

    def __post_init__(self) -> None:
        import openvino

        self.name, self.precision = f"OpenVINO {HINTS[self.precision_hint]}", "full"
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": self.precision_hint,
        }
        self.model: Any = openvino.Core().compile_model(str(self.path), "CPU", settings)

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        ids, mask = padded(sequences)
        hidden = self.model({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        return torch.from_numpy(np.array(hidden))[mask.bool()]


def sides_for(folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Side]]:
    """Names of all sides that can run `folder` here, ours first, each to be built when it is wanted."""
    found: dict[str, Callable[[], Side]] = {
        "modernbert": lambda: Ours(folder=folder, dtype=dtype, device=device),
        "transformers": lambda: Transformers(folder=folder, device=device),
    }
    if dtype != torch.float32:
        found["transformers-low"] = lambda: Transformers(folder=folder, dtype=dtype, device=device)
    if device.type != "cpu":
        return found
    found["modernbert-int8"] = lambda: Ours(folder=folder, is_int8=True)
    found["onnxruntime"] = lambda: OnnxRuntime(path=export(folder))
    found["onnxruntime-int8"] = lambda: OnnxRuntime(path=quantize(folder), is_int8=True)
    found["openvino"] = lambda: OpenVino(path=export(folder))
    if dtype == torch.bfloat16:
        found["openvino-low"] = lambda: OpenVino(path=export(folder), precision_hint="bf16")
    if can_run(folder):
        found["xllamacpp"] = lambda: LlamaCpp(folder=folder)
        found["xllamacpp-int8"] = lambda: LlamaCpp(folder=folder, format="Q8_0")
        if dtype == torch.bfloat16:
            found["xllamacpp-low"] = lambda: LlamaCpp(folder=folder, format="BF16")
    return found


def theirs(folder: Path) -> PreTrainedModel:
    """transformers' model of these weights."""
    return AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()


def padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, each [S, N], as long as the longest."""
    longest = max(map(len, sequences))
    rows = [sequence + [0] * (longest - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(rows), torch.tensor(mask)


class _HiddenStates(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return cast(Tensor, hidden)


def export(folder: Path) -> Path:
    """transformers' model as ONNX in its folder, with both axes free; kept for the next side."""
    path = folder / "model.onnx"
    if path.exists():
        return path
    report("exporting transformers' model to ONNX")
    model = theirs(folder)
    ids, mask = padded([[5] * 300, [5] * 200])
    axes = {
        0: torch.export.Dim("batch", min=1, max=MAX_BATCH),
        1: torch.export.Dim("sequence", min=2, max=model.config.max_position_embeddings),
    }
    program = torch.onnx.export(
        _HiddenStates(model),
        (ids, mask),
        dynamo=True,
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=True)
    del model, program
    gc.collect()
    return path


def quantize(folder: Path) -> Path:
    """The same with 8-bit weights and activations, by ONNX Runtime's own dynamic quantisation."""
    path = folder / "model-int8.onnx"
    if not path.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        exported = export(folder)
        report("quantising the ONNX file")
        quantize_dynamic(exported, path, weight_type=QuantType.QInt8, use_external_data_format=True)
    return path


def short(dtype: torch.dtype) -> str:
    """fp32, bf16, fp16."""
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def report(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
