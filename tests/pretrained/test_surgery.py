"""Means of models, and models with other vocabularies: their numbers, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modernbert.errors import ConfigError, InputError, TokenizerError, WeightsError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.surgery import (
    average_models,
    entry_texts,
    match_vocabulary,
    resize_vocabulary,
)
from modernbert.pretrained.weights import state_of
from modernbert.text.tokenizer import Tokenizer
from tests.pretrained.small_models import NAMES, numbers, small_model, small_tokenizer

TABLE = "model.embeddings.tok_embeddings.weight"


# Means


@pytest.fixture
def folders(tmp_path):
    """Three models of one kind."""
    paths = [tmp_path / name for name in "abc"]
    for seed, path in enumerate(paths):
        write_folder(path, small_model(seed, tokenizer=small_tokenizer()))
    return paths


def test_the_mean_is_the_mean_of_every_tensor(folders, tmp_path):
    mean = average_models(folders)
    states = [state_of(read_folder(folder).module) for folder in folders]
    for name, tensor in state_of(mean.module).items():
        expected = torch.stack([state[name].double() for state in states]).mean(dim=0).float()
        assert torch.equal(tensor, expected), name
    write_folder(tmp_path / "mean", mean)
    again = read_folder(tmp_path / "mean")
    assert torch.equal(numbers(again), numbers(mean))
    assert again.tokenizer.encode_ids(["w3"]) == small_tokenizer().encode_ids(["w3"])


def test_the_mean_of_equal_models_is_that_model(folders):
    assert torch.equal(
        numbers(average_models([folders[0], folders[0], folders[0]])), numbers(read_folder(folders[0]))
    )


def test_a_mean_in_bf16_is_rounded_once(folders, tmp_path):
    paths = []
    for folder in folders:
        model = read_folder(folder, dtype=torch.bfloat16)
        write_folder(tmp_path / f"half {folder.name}", model)
        paths.append(tmp_path / f"half {folder.name}")
    mean = state_of(average_models(paths).module)[TABLE]
    tables = [state_of(read_folder(path).module)[TABLE].double() for path in paths]
    assert torch.equal(mean, torch.stack(tables).mean(dim=0).bfloat16())


def test_a_mean_of_one_is_refused(folders):
    with pytest.raises(InputError, match="two models or more, found 1"):
        average_models(folders[:1])


def test_models_of_other_shapes_are_refused_by_what_differs(folders, tmp_path):
    model = small_model()
    blocks = list(model.config.encoder.blocks)
    blocks[2] = replace(blocks[2], attention=replace(blocks[2].attention, window_each_side=8))
    config = replace(model.config, encoder=replace(model.config.encoder, blocks=tuple(blocks)))
    write_folder(
        tmp_path / "other",
        Pretrained(config=config, module=config.build(), tokenizer=small_tokenizer()),
        layout="parts",
    )
    with pytest.raises(ConfigError, match=r"encoder\.blocks\.2\.attention\.window_each_side: 4, 8"):
        average_models([folders[0], tmp_path / "other"])


@pytest.mark.parametrize(
    ("tokenizer", "what"),
    [(small_tokenizer(21), "entries: 26, 27"), (None, "one has none")],
)
def test_models_of_other_vocabularies_are_refused(folders, tmp_path, tokenizer, what):
    write_folder(tmp_path / "other", small_model(tokenizer=tokenizer))
    with pytest.raises(TokenizerError, match=what):
        average_models([folders[0], tmp_path / "other"])


def test_a_mean_does_not_hide_a_nan(folders):
    broken = read_folder(folders[1])
    state_of(broken.module)["model.layers.2.mlp.Wo.weight"][0, 0] = float("nan")
    write_folder(folders[1], broken)
    with pytest.raises(WeightsError, match=r"b holds .* model\.layers\.2\.mlp\.Wo\.weight \(1\)"):
        average_models(folders)


# Other vocabularies


def tokenizer_of(words: list[str], names: list[str] = NAMES) -> Tokenizer:
    """Words, whole or in pieces behind "##", longest first."""
    return Tokenizer({"vocab.txt": "\n".join([*names, *words]).encode()})


OLD = tokenizer_of(["un", "happy", "##happy", "##ly", "the", "a", "##s"])


def test_entries_are_found_by_themselves_or_by_their_pieces():
    new = tokenizer_of(["the", "unhappy", "##s", "unhappyly", "zebra", "##happys"], [*NAMES[1:], NAMES[0]])
    match = match_vocabulary(OLD, new)
    ids = {name: OLD.id_of(name) for name in (*NAMES, "un", "happy", "##happy", "##ly", "the", "##s")}
    assert match.pieces == (
        *((ids[name],) for name in (*NAMES[1:], NAMES[0])),
        (ids["the"],),
        (ids["un"], ids["##happy"]),
        (ids["##s"],),
        (ids["un"], ids["##happy"], ids["##ly"]),
        (),
        (ids["happy"], ids["##s"]),
    )
    assert (match.num_kept, match.num_composed, match.num_unmatched) == (7, 3, 1)


def test_special_tokens_are_found_by_what_they_are_for():
    files = {
        "tokenizer.json": small_tokenizer()
        .__reduce__()[1][0]["tokenizer.json"]
        .replace(b"[CLS]", b"<s>")
        .replace(b"[MASK]", b"<mask>"),
        "tokenizer_config.json": json.dumps(
            {"cls_token": "<s>", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "<mask>"}
        ).encode(),
    }
    new = Tokenizer(files)
    match = match_vocabulary(small_tokenizer(), new)
    assert match.pieces[new.cls_id] == (small_tokenizer().cls_id,)
    assert match.pieces[new.mask_id] == (small_tokenizer().mask_id,)
    assert match.num_kept == new.vocab_size


def test_a_new_row_is_the_mean_of_its_pieces_and_an_old_one_stays():
    model = small_model(head=MlmHeadConfig(is_tied=False), tokenizer=OLD)
    new = tokenizer_of(["the", "unhappy", "zebra"])
    resized = resize_vocabulary(model, new)
    old_state, state = state_of(model.module), state_of(resized.module)
    for name in (TABLE, "decoder.weight", "decoder.bias"):
        before, after = old_state[name], state[name]
        assert len(after) == 64
        assert torch.equal(after[new.id_of("the")], before[OLD.id_of("the")])
        assert torch.equal(after[new.mask_id], before[OLD.mask_id])
        pieces = before[[OLD.id_of("un"), OLD.id_of("##happy")]]
        torch.testing.assert_close(after[new.id_of("unhappy")], pieces.mean(dim=0))
        mean = before[: OLD.vocab_size].mean(dim=0)
        torch.testing.assert_close(after[new.id_of("zebra")], mean)
        torch.testing.assert_close(after[63], mean)
    for name in state.keys() - {TABLE, "decoder.weight", "decoder.bias"}:
        assert torch.equal(state[name], old_state[name]), name
        assert state[name].data_ptr() != old_state[name].data_ptr(), name


def test_the_same_vocabulary_gives_the_same_model():
    model = small_model(tokenizer=small_tokenizer())
    resized = resize_vocabulary(model, small_tokenizer())
    before, after = numbers(model), numbers(resized)
    known = small_tokenizer().vocab_size
    assert torch.equal(before[:, :known], after[:, :known])


@pytest.mark.parametrize("head", [MlmHeadConfig(), ClassifyHeadConfig(labels=("a", "b"))])
def test_a_resized_model_is_written_with_the_ids_of_its_tokenizer(tmp_path, head):
    model = small_model(head=head, tokenizer=OLD)
    write_folder(tmp_path / "model", model)
    new = tokenizer_of(["the", "unhappy"], [*NAMES[3:], *NAMES[:3]])
    resized = resize_vocabulary(read_folder(tmp_path / "model"), new)
    write_folder(tmp_path / "resized", resized)
    config = json.loads((tmp_path / "resized" / "config.json").read_text())
    assert config["vocab_size"] == 64
    for name, token_id in (("cls", new.cls_id), ("sep", new.sep_id), ("pad", new.pad_id)):
        assert config[f"{name}_token_id"] == token_id
    again = read_folder(tmp_path / "resized")
    assert torch.equal(numbers(again), numbers(resized))


def test_a_model_without_a_tokenizer_cannot_be_resized():
    with pytest.raises(TokenizerError, match="nothing says what its rows stand for"):
        resize_vocabulary(small_model(), OLD)


def test_texts_of_entries_show_where_a_word_begins():
    texts = entry_texts(OLD)
    assert texts[: len(NAMES)] == [None] * len(NAMES)
    assert texts[OLD.id_of("the")] == " the"
    assert texts[OLD.id_of("##ly")] == "ly"


def test_words_of_wordpiece_find_the_byte_level_entries_with_their_blank():
    folder = Path(os.environ.get("MODERNBERT_DATA", "")) / "data" / "tokenizer" / "modernbert"
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("the published tokenizer is not there; MODERNBERT_DATA names the folder that has it")
    old = Tokenizer.from_folder(folder)
    new = tokenizer_of(["the", "##the", "photosynthesis", "##ing", ".", "\u00e9t\u00e9"])
    match = match_vocabulary(old, new)
    assert match.num_kept == len(NAMES) + 1  # and the full stop
    pieces = {new.token(i): [old.token(j) for j in found] for i, found in enumerate(match.pieces)}
    assert pieces["[MASK]"] == ["[MASK]"]
    assert pieces["the"] == ["\u0120the"]
    assert pieces["##the"] == ["the"]
    assert pieces["photosynthesis"] == ["\u0120photos", "ynthesis"]
    assert pieces["##ing"] == ["ing"]
    same = match_vocabulary(old, old)
    assert same.num_kept == old.vocab_size
