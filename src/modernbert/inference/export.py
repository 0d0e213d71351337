"""A model as a graph for other runtimes: an ONNX file, with the tokenizer and the configuration beside it.

    model.onnx       input_ids, attention_mask (and token_type_ids) -> what the head gives, padded
    model.onnx_data  its weights, where a single file could not hold them
    the rest         config.json, the tokenizer, the layout of Sentence Transformers

Weights are float32, whatever the folder stored: that is exact for 16 bits, every runtime computes in it, and
those that compute in less round for themselves. Inputs and outputs are named as in the exports of optimum.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from modernbert.encoder.attention import Attention
from modernbert.encoder.block import ParallelBlock, PostNormBlock, PreNormBlock
from modernbert.encoder.embedding import Embedding, LearnedPositions
from modernbert.encoder.rotary import Rotary
from modernbert.errors import ConfigError, FolderError, ModernBertError, WeightsError
from modernbert.files import folder_being_written
from modernbert.heads.classify import ChoiceModel, SequenceClassifier
from modernbert.heads.embed import EmbedHeadConfig, Pooler, TextEmbedder, TokenEmbedder
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.heads.tokens import TokenClassifier
from modernbert.inference.outside_training import outside_training
from modernbert.inference.padded import PaddedModel, Rows
from modernbert.pretrained.folder import Pretrained, write_companions
from modernbert.pretrained.other_files import keep_other_files
from modernbert.pretrained.weights import OWNED_FILES
from modernbert.progress import Bar
from modernbert.text.batch import PackedBatch

if TYPE_CHECKING:
    from modernbert.encoder.encoder import Encoder

GRAPH_FILE, DATA_FILE = "model.onnx", "model.onnx_data"
# What torch's exporter recommends in 2.13, and both ONNX Runtime and OpenVINO run.
OPSET = 20
# A protobuf message ends at 2 GiB; the graph itself takes some of it.
MOST_BYTES_INSIDE = 1_900_000_000
# Padding must change nothing but the rounding of sums in another order; a share of the largest number.
_TOLERANCE = 1e-3
_EXAMPLE_LENGTHS = (1, 7, 16)
_HEADS = (
    MaskedLanguageModel,
    SequenceClassifier,
    ChoiceModel,
    TokenClassifier,
    TextEmbedder,
    TokenEmbedder,
    Pooler,
)
_BLOCKS = (PreNormBlock, PostNormBlock, ParallelBlock)


def export_onnx(model: Pretrained, target: Path) -> None:
    """Write a folder with the model as ONNX: all of it, or, on an error, what was there before.

    An old export at `target` is replaced; files of others there are kept. Raises ConfigError for parts of a
    user's own that only packs can serve, FolderError for a `target` that is something else, and
    ModernBertError without the packages.
    """
    _require_packages()
    target = Path(target)
    _require_place(target)
    if reasons := list(dict.fromkeys(_unsupported(model.module))):
        raise ConfigError("the model cannot be exported:\n" + "\n".join(f"  {each}" for each in reasons))
    if model.is_int8:
        warnings.warn("the model is in 8 bits; the export holds the same weights in float32", stacklevel=2)
    if isinstance(model.config.head, EmbedHeadConfig) and not model.config.head.pools_prompt:
        warnings.warn(
            "this model leaves its prompts out of the pooling, and a graph does not know where one ends: "
            "sentence_embedding is right for texts without a prompt; pool last_hidden_state for the others",
            stacklevel=2,
        )
    bar = Bar(label="export", total=3, unit=" steps")
    try:
        _export(_in_float32(model), target, bar)
    finally:
        bar.close()


def _export(model: Pretrained, target: Path, bar: Bar) -> None:
    graph = PaddedModel(model).eval()
    inputs = _example(model)
    bar.advance(0, "looking")
    with torch.no_grad():
        encoder = cast("Encoder", model.module.model)
        _check_padding(cast("Encoder", outside_training(encoder)), graph, inputs)
        bar.advance(1, "tracing")
        program = _traced(graph, inputs)
    bar.advance(1, "writing")
    try:
        with folder_being_written(target) as folder:
            _write_graph(program, folder)
            write_companions(folder, model)
            if target.exists():
                keep_other_files(target, folder)
    except OSError as error:
        state = "It is as it was before" if target.exists() else "Nothing is left of it"
        raise FolderError(f"{target} could not be written: {error}. {state}") from error
    bar.advance(1)


def _in_float32(model: Pretrained) -> Pretrained:
    """The model on the CPU in float32: itself, or a copy."""
    if all(each.dtype == torch.float32 and each.device.type == "cpu" for each in model.module.parameters()):
        return model
    return replace(model, module=copy.deepcopy(model.module).cpu().float())


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise ModernBertError(
            f"an export needs onnx and onnxscript ({error}): pip install 'modernbert[export]'"
        ) from error


def _require_place(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    files = [path.name for path in target.iterdir()] if target.is_dir() else []
    if GRAPH_FILE not in files or any(OWNED_FILES.fullmatch(name) for name in files):
        raise FolderError(f"{target} exists and is no export; name a new folder, or empty this one first")


def _unsupported(module: nn.Module) -> Iterator[str]:
    """What sees the bounds of sequences and is not ours; what treats tokens one by one may be a user's."""
    words = "{} is a {} of your own, which sees tokens in packs, and a graph has padded rows"
    if type(module) not in _HEADS:
        yield words.format(type(module).__name__, "head")
    encoder = cast("Encoder", module.model)
    embedding = encoder.embeddings
    if type(embedding) is not Embedding:
        yield words.format(type(embedding).__name__, "kind of embeddings")
    elif type(embedding.positions) not in (LearnedPositions, type(None)):
        yield words.format(type(embedding.positions).__name__, "kind of positions")
    for block in encoder.layers:
        if type(block) not in _BLOCKS:
            yield words.format(type(block).__name__, "block")
        elif type(block.attn) is not Attention:
            yield words.format(type(block.attn).__name__, "kind of attention")
        elif type(block.attn.positions) not in (Rotary, type(None)):
            yield words.format(type(block.attn.positions).__name__, "kind of positions")


def _example(model: Pretrained) -> dict[str, Tensor]:
    """Rows to trace with, of lengths that differ and on no bound of any layer."""
    lengths = [min(each, model.config.encoder.max_positions) for each in _EXAMPLE_LENGTHS]
    shape = (len(lengths), max(lengths))
    generator = torch.Generator().manual_seed(0)
    is_real = torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]
    return {
        "input_ids": torch.randint(0, model.config.encoder.vocab_size, shape, generator=generator),
        "attention_mask": is_real.long(),
        "token_type_ids": torch.randint(0, 2, shape, generator=generator),
    }


def _check_padding(encoder: Encoder, graph: PaddedModel, inputs: Mapping[str, Tensor]) -> None:
    """ConfigError unless rows give what packs give: a norm or MLP of a user's may mix tokens."""
    types = inputs["token_type_ids"] if graph.has_token_types else None
    token_ids, is_real = inputs["input_ids"], inputs["attention_mask"]
    packed = encoder(PackedBatch.from_padded(token_ids, is_real, types), "sdpa")
    padded = graph.hidden(Rows.of(token_ids, is_real, types))[is_real.bool()]
    if not packed.isfinite().all():
        raise WeightsError(
            "the model gives numbers that are not finite, so there is nothing to export; "
            "`modernbert info MODEL --check` names the tensor"
        )
    gap, size = float((packed - padded).abs().max()), float(packed.abs().max())
    if not gap <= _TOLERANCE * size:
        raise ConfigError(
            f"the model cannot be exported: padding changes its numbers by {gap:.2g}, of at most {size:.2g}. "
            "A norm or MLP of your own must treat each vector of [..., D] alone"
        )


def _traced(graph: PaddedModel, inputs: Mapping[str, Tensor]) -> Any:
    """torch's ONNXProgram."""
    names = ["input_ids", "attention_mask", *["token_type_ids"] * graph.has_token_types]
    example = {name: inputs[name] for name in names}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    if isinstance(graph.twin, ChoiceModel):
        example = {name: torch.stack((each, each), dim=1) for name, each in example.items()}
        axes = {0: axes[0], 1: torch.export.Dim("choices"), 2: axes[1]}
    with _quietly():
        try:
            return torch.onnx.export(
                graph,
                tuple(example.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=list(graph.outputs(**example)),
                dynamic_shapes=(axes,) * len(names),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # the first of several steps that failed
                cause = cause.__cause__
            raise ConfigError(
                f"the model cannot be traced into a graph: {str(cause).splitlines()[0]}. Norms, MLPs and "
                "activations must be made of operations that ONNX has, without choices that depend on numbers"
            ) from error


@contextmanager
def _quietly() -> Generator[None]:
    """The exporter warns of its own insides and of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_graph(program: Any, folder: Path) -> None:
    """Write the graph without what the exporter notes in it: names of modules, lines of source files."""
    import onnx_ir

    graph = program.model.graph
    for node in graph.all_nodes():
        for noted in (node, *node.outputs):
            noted.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values(), graph):
        value.metadata_props.clear()
    num_bytes = sum(each.const_value.nbytes for each in graph.initializers.values())
    outside = DATA_FILE if num_bytes > MOST_BYTES_INSIDE else None
    onnx_ir.save(program.model, folder / GRAPH_FILE, external_data=outside)
