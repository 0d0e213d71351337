"""The sides of inference.py: one ModernBERT-base, run by this package and by what else a user would pick.

Every side takes lists of token ids and gives the hidden states of the real tokens, [T, D], in float32. What
pads does so inside, as it must for its users. All run with as many threads as torch has.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertModel
from transformers.utils import logging as transformers_logging

from modernbert.encoder.presets import modernbert_base
from modernbert.text.batch import PackedBatch

SEED = 20_241_218
CPU = torch.device("cpu")
OPSET = 20
MAX_BATCH = 512


class Side(Protocol):
    """A way to run the model. `precision` is "full" (fp32 or bf16) or "int8": like is compared with like."""

    name: str
    precision: str

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        ...


@dataclass(kw_only=True)
class Ours:
    """The package: real tokens end to end through Encoder."""

    weights: Mapping[str, Tensor]
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU
    is_int8: bool = False

    def __post_init__(self) -> None:
        self.name = "modernbert int8" if self.is_int8 else f"modernbert {short(self.dtype)}"
        self.precision = "int8" if self.is_int8 else "full"
        encoder = modernbert_base().build().eval()
        encoder.load_state_dict(self.weights, strict=True)
        self.encoder = encoder.to(self.device, self.dtype)
        self.encoder.native.is_on = True  # as for every model that is loaded to be asked
        self.encoder.native.is_int8 = self.is_int8

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        return self.encoder(PackedBatch.from_sequences(sequences).to(self.device)).float()


@dataclass(kw_only=True)
class Transformers:
    """transformers with SDPA: a padded batch and its mask, as a tokenizer gives them."""

    weights: Mapping[str, Tensor]
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU

    def __post_init__(self) -> None:
        self.name, self.precision = f"transformers {short(self.dtype)}", "full"
        self.model = theirs(self.weights).to(self.device, self.dtype)

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

    def __post_init__(self) -> None:
        import openvino

        self.name, self.precision = f"OpenVINO {self.precision_hint.replace('f', 'fp', 1)}", "full"
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


def sides_for(device: torch.device, dtype: torch.dtype, work: Path) -> dict[str, Callable[[], Side]]:
    """Names of all sides that can run here, ours first, each to be built when it is wanted."""
    weights = random_weights()
    found: dict[str, Callable[[], Side]] = {
        "modernbert": lambda: Ours(weights=weights, dtype=dtype, device=device),
        "transformers": lambda: Transformers(weights=weights, device=device),
    }
    if dtype != torch.float32:
        found["transformers-low"] = lambda: Transformers(weights=weights, dtype=dtype, device=device)
    if device.type != "cpu":
        return found
    exported = work / "model.onnx"
    small = work / "model-int8.onnx"
    found["modernbert-int8"] = lambda: Ours(weights=weights, is_int8=True)
    found["onnxruntime"] = lambda: OnnxRuntime(path=export(weights, exported))
    found["onnxruntime-int8"] = lambda: OnnxRuntime(
        path=quantize(export(weights, exported), small), is_int8=True
    )
    found["openvino"] = lambda: OpenVino(path=export(weights, exported))
    if dtype == torch.bfloat16:
        found["openvino-low"] = lambda: OpenVino(path=export(weights, exported), precision_hint="bf16")
    return found


def random_weights() -> dict[str, Tensor]:
    """Of ModernBERT-base: speed does not depend on what they are."""
    transformers_logging.set_verbosity_error()
    torch.manual_seed(SEED)
    return ModernBertModel(config()).state_dict()


def config() -> ModernBertConfig:
    """transformers' defaults are ModernBERT-base; said aloud is what decides the speed."""
    return ModernBertConfig(attn_implementation="sdpa", max_position_embeddings=8192)


def theirs(weights: Mapping[str, Tensor]) -> ModernBertModel:
    """transformers' model of these weights."""
    model = ModernBertModel(config()).eval()
    model.load_state_dict(weights, strict=True)
    return model


def padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, each [S, N], as long as the longest."""
    longest = max(map(len, sequences))
    rows = [sequence + [0] * (longest - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(rows), torch.tensor(mask)


class _HiddenStates(nn.Module):
    def __init__(self, model: ModernBertModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return cast(Tensor, hidden)


def export(weights: Mapping[str, Tensor], path: Path) -> Path:
    """transformers' model as ONNX, with both axes free; kept for the next side."""
    if path.exists():
        return path
    report("exporting transformers' model to ONNX")
    ids, mask = padded([[5] * 300, [5] * 200])
    axes = {
        0: torch.export.Dim("batch", min=1, max=MAX_BATCH),
        1: torch.export.Dim("sequence", min=2, max=8192),
    }
    program = torch.onnx.export(
        _HiddenStates(theirs(weights)),
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
    del program
    gc.collect()
    return path


def quantize(path: Path, target: Path) -> Path:
    """The same with 8-bit weights and activations, by ONNX Runtime's own dynamic quantisation."""
    if not target.exists():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        report("quantising the ONNX file")
        quantize_dynamic(path, target, weight_type=QuantType.QInt8, use_external_data_format=True)
    return target


def short(dtype: torch.dtype) -> str:
    """fp32, bf16, fp16."""
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def report(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
