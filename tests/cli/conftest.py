"""Small random models of every kind, as folders on disk, and a way to call the verbs in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from modernbert.cli import verbs
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.pretrained.sentence import TextSettings
from modernbert.text.tokenizer import Tokenizer

Run = Callable[..., Result]
SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "sat",
    "lives",
    "in",
    "london",
    "ada",
    "who",
    "where",
    "rain",
    "is",
    "wet",
    "good",
    "bad",
    ".",
    ",",
    "?",
]
HEADS: dict[str, HeadPart] = {
    "mlm": MlmHeadConfig(),
    "embed": EmbedHeadConfig(is_normalized=True),
    "classify": ClassifyHeadConfig(labels=("bad", "fair", "good")),
    "rerank": ClassifyHeadConfig(labels=("fits",), problem="regression"),
    "tag": TagHeadConfig(labels=("O", "B-PER", "I-PER")),
    "span": SpanHeadConfig(),
}


def write_small(folder: Path, head: HeadPart, tokenizer: Tokenizer | None) -> Path:
    """Two layers, one global and one local; 32 rows, 64 positions, prompts of its own."""
    torch.manual_seed(0)
    mlp = GluConfig(intermediate_size=24)
    everywhere = AttentionConfig(num_heads=2, rotary=RotaryConfig(theta=160_000.0))
    nearby = AttentionConfig(num_heads=2, rotary=RotaryConfig(), window_each_side=4)
    blocks = (
        PreNormConfig(attention=everywhere, mlp=mlp, attention_norm=None),
        PreNormConfig(attention=nearby, mlp=mlp),
    )
    config = ModelConfig(
        encoder=EncoderConfig(vocab_size=32, hidden_size=16, blocks=blocks, pad_token_id=0, max_positions=64),
        head=head,
    )
    settings = (
        TextSettings(prompts={"query": "who "}) if isinstance(head, EmbedHeadConfig) else TextSettings()
    )
    module = config.build().eval()
    model = Pretrained(config=config, module=module, tokenizer=tokenizer, settings=settings)
    write_folder(folder, model)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One word a token, lower case."""
    added = [
        {"id": i, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, name in enumerate(SPECIALS)
    ]
    special = {
        name: {"id": name, "ids": [SPECIALS.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
    }
    first, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    cls, sep = ({"SpecialToken": {"id": name, "type_id": 0}} for name in special)
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, sep],
            "special_tokens": special,
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {name: i for i, name in enumerate([*SPECIALS, *WORDS])},
            "unk_token": "[UNK]",
        },
    }
    return Tokenizer({"tokenizer.json": json.dumps(definition).encode()})


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Path]:
    """A folder for each of HEADS."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_small(root / name, head, tokenizer) for name, head in HEADS.items()}


@pytest.fixture
def run(folders: dict[str, Path]) -> Run:
    """Call a verb; `kind` adds --model with the small model of that kind."""

    def run(*args: str, kind: str | None = None, **kwargs: Any) -> Result:
        named = [] if kind is None else ["--model", str(folders[kind])]
        return CliRunner().invoke(verbs, [*args, *named], prog_name="modernbert", **kwargs)

    return run


def json_lines(result: Result) -> list[dict[str, Any]]:
    """Every line of stdout, each of which must be a JSON object."""
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_fails(result: Result, *parts: str, code: int = 1, num_lines_done: int = 0) -> None:
    """No data but for what was done before, no traceback, and a message that holds the parts."""
    assert result.exit_code == code, result.output
    assert len(result.stdout.splitlines()) == num_lines_done
    assert "Traceback" not in result.stderr
    message: Sequence[str] = [part for part in parts if part not in result.stderr]
    assert not message, f"{message} not in: {result.stderr}"
