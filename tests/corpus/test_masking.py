from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.corpus.masking import LONGEST_SPAN, SPAN_P, Masker, Spans, Tokens
from modernbert.errors import CorpusError
from modernbert.text.tokenizer import Tokenizer
from tests.inference.tiny import byte_level, word_piece
from tests.pretrained.small_models import small_tokenizer

# A count that is off by more than so many deviations of its binomial distribution is no accident: 1 in 1.7 M.
DEVIATIONS = 5.0
CLS, SEP, MASK, FIRST, VOCAB_SIZE = 1, 2, 3, 6, 106
GOLDEN_POSITIONS = [7, 8, 10, 16, 18, 19, 21, 22, 28]
GOLDEN_TOKENS = [3, 3, 3, 3, 66, 24, 26, 100, 3]


def plain_masker() -> Masker:
    """100 real tokens after six special ones, and four that are no text."""
    is_maskable = np.arange(VOCAB_SIZE + 4) >= FIRST
    return Masker(
        mask_id=MASK, is_maskable=is_maskable, real_ids=np.arange(FIRST, VOCAB_SIZE), units=Tokens()
    )


def row(*lengths: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Sequences of random tokens, these long with their special tokens."""
    generator = np.random.default_rng(seed)
    sequences = [[CLS, *generator.integers(FIRST, VOCAB_SIZE, length - 2), SEP] for length in lengths]
    return np.concatenate(sequences).astype(np.int64), list(lengths)


def require_binomial(count: int, num_trials: int, share: float) -> None:
    deviation = np.sqrt(num_trials * share * (1 - share))
    assert abs(count - num_trials * share) <= DEVIATIONS * deviation, (count, num_trials, share)


def words_of(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, list[int | None]]:
    """The ids of a text of words parted by blanks, and each token's word as the tokenizer itself tells it.

    A blank that is a token of its own belongs to the word behind it.
    """
    (encoding,) = tokenizer.encode_words([text.split()])
    words = encoding.word_ids
    for place in range(len(words) - 2, 0, -1):
        words[place] = words[place + 1] if words[place] is None else words[place]
    return np.array(encoding.token_ids), words


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(3, 40), min_size=1, max_size=8),
    rate=st.floats(0.001, 1.0),
    number=st.integers(0, 2**40),
    unit=st.sampled_from([Tokens(), Spans()]),
)
def test_labels_are_the_tokens_that_stood_at_the_positions_and_nothing_else_changes(
    lengths, rate, number, unit
):
    masker = Masker(
        mask_id=MASK,
        is_maskable=np.arange(VOCAB_SIZE) >= FIRST,
        real_ids=np.arange(FIRST, VOCAB_SIZE),
        units=unit,
    )
    token_ids, _ = row(*lengths, seed=number)
    before = token_ids.copy()
    masked = masker.mask(token_ids, lengths, rate=rate, seed=(1, number))
    assert (token_ids == before).all()
    assert (masked.labels == token_ids[masked.positions]).all()
    assert (masked.labels >= FIRST).all()  # never a special token
    assert (np.diff(masked.positions) > 0).all()
    others = np.setdiff1d(np.arange(len(token_ids)), masked.positions)
    assert (masked.token_ids[others] == token_ids[others]).all()
    assert ((masked.token_ids == MASK) | (masked.token_ids >= FIRST) | (token_ids < FIRST)).all()
    assert masked.token_ids.dtype == masked.positions.dtype == masked.labels.dtype == np.int64


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.3, 1.0])
@pytest.mark.parametrize("length", [3, 4, 5, 12, 1024])
def test_the_number_of_tokens_is_the_nearest_to_the_rate_and_at_least_one(rate, length):
    token_ids, lengths = row(length)
    for number in range(5):
        masked = plain_masker().mask(token_ids, lengths, rate=rate, seed=(0, number))
        assert len(masked.positions) >= 1
        assert len(masked.positions) == 1 or abs(len(masked.positions) - rate * (length - 2)) <= 0.5


def test_of_the_chosen_80_percent_are_hidden_10_replaced_and_10_kept():
    masker, num_hidden, num_kept, num_chosen = plain_masker(), 0, 0, 0
    replaced: Counter[int] = Counter()
    for number in range(200):
        token_ids, lengths = row(300, 20, 180, seed=number)
        masked = masker.mask(token_ids, lengths, rate=0.3, seed=(9, number))
        seen = masked.token_ids[masked.positions]
        num_chosen += len(seen)
        num_hidden += int((seen == MASK).sum())
        num_kept += int((seen == masked.labels).sum())
        replaced.update(seen[(seen != MASK) & (seen != masked.labels)].tolist())
    require_binomial(num_hidden, num_chosen, 0.8)
    # one random token in a hundred is the one that stood there
    require_binomial(num_kept, num_chosen, 0.1 + 0.1 / 100)
    require_binomial(replaced.total(), num_chosen, 0.1 - 0.1 / 100)


def test_random_tokens_are_all_real_ones_alike():
    token_ids, lengths = row(20_002)
    masked = plain_masker().mask(token_ids, lengths, rate=1.0, seed=(0, 0))
    seen = masked.token_ids[(masked.token_ids != MASK) & (masked.token_ids != token_ids)]
    counts = Counter(seen.tolist())
    assert set(counts) == set(range(FIRST, VOCAB_SIZE))
    for count in counts.values():
        require_binomial(count, len(seen), 1 / 100)


def test_every_place_is_chosen_as_often_as_every_other():
    token_ids, lengths = row(12, 7, 30)
    counts = np.zeros(len(token_ids))
    num_rows = 4000
    for number in range(num_rows):
        counts[plain_masker().mask(token_ids, lengths, rate=0.25, seed=(3, number)).positions] += 1
    share = counts.sum() / num_rows / (token_ids >= FIRST).sum()
    assert share == pytest.approx(0.25, abs=0.01)  # whole tokens are chosen, of 43
    for count in counts[token_ids >= FIRST]:
        require_binomial(int(count), num_rows, share)


def test_masks_follow_from_the_seed_and_the_row_alone():
    token_ids, lengths = row(200)
    masker = plain_masker()
    first = masker.mask(token_ids, lengths, rate=0.3, seed=(1, 5))
    masker.mask(token_ids, lengths, rate=0.3, seed=(1, 6))
    again = plain_masker().mask(token_ids, lengths, rate=0.3, seed=(1, 5))
    assert (first.token_ids == again.token_ids).all()
    assert (first.positions == again.positions).all()
    for other in ((1, 6), (2, 5)):
        masked = masker.mask(token_ids, lengths, rate=0.3, seed=other)
        alike = len(np.intersect1d(masked.positions, first.positions))
        assert alike < 0.6 * len(first.positions)  # 30 % are expected


def test_the_masks_are_the_ones_they_always_were():
    token_ids = np.concatenate([[CLS], np.arange(FIRST, FIRST + 30), [SEP]])
    masked = plain_masker().mask(token_ids, [32], rate=0.3, seed=(17, 123))
    assert masked.positions.tolist() == GOLDEN_POSITIONS
    assert masked.token_ids[masked.positions].tolist() == GOLDEN_TOKENS


def test_a_row_of_special_tokens_has_nothing_to_guess():
    token_ids = np.array([CLS, SEP, CLS, SEP])
    masked = plain_masker().mask(token_ids, [2, 2], rate=0.3, seed=(0, 0))
    assert masked.token_ids.tolist() == token_ids.tolist()
    assert len(masked.positions) == len(masked.labels) == 0
    assert masked.positions.dtype == masked.labels.dtype == np.int64


# Units


@pytest.mark.parametrize("make", [byte_level, word_piece], ids=["byte-level", "WordPiece"])
def test_words_are_hidden_whole_and_share_their_fate(make):
    tokenizer = make()
    masker = Masker.of(tokenizer, unit="word")
    text = "the mechanic walked unfair slowly to Sofia with bread and water for somebody else"
    token_ids, word_ids = words_of(tokenizer, text)
    sizes = Counter(word for word in word_ids if word is not None)
    assert 1 < max(sizes.values()) <= 8
    fates: Counter[str] = Counter()
    for number in range(400):
        masked = masker.mask(token_ids, [len(token_ids)], rate=0.3, seed=(0, number))
        chosen = Counter(word_ids[position] for position in masked.positions)
        assert all(count == sizes[word] for word, count in chosen.items())
        for word in chosen:
            places = [place for place, each in enumerate(word_ids) if each == word]
            is_hidden = masked.token_ids[places] == masker.mask_id
            assert is_hidden.all() or not is_hidden.any()
            is_kept = (masked.token_ids[places] == token_ids[places]).all()
            fates["hidden" if is_hidden.all() else "kept" if is_kept else "replaced"] += 1
    require_binomial(fates["hidden"], fates.total(), 0.8)
    assert min(fates["kept"], fates["replaced"]) > 0


def test_words_keep_near_the_rate():
    tokenizer = byte_level()
    masker = Masker.of(tokenizer, unit="word")
    token_ids, _ = words_of(tokenizer, "the mechanic walked to Sofia and bought some bread for Anna " * 20)
    masked = masker.mask(token_ids, [len(token_ids)], rate=0.3, seed=(0, 0))
    # off by half of the longest word, of 8 tokens, at most
    assert abs(len(masked.positions) - 0.3 * (len(token_ids) - 2)) <= 4


def test_spans_have_the_lengths_of_spanbert():
    begins = np.flatnonzero(Spans().begin(np.zeros(100_000, np.int64), np.random.default_rng(0)))
    lengths = np.diff(begins)
    assert lengths.mean() == pytest.approx(3.8, abs=0.1)  # as the paper says, section 3.1
    whole = 1 - (1 - SPAN_P) ** LONGEST_SPAN
    for length in range(1, LONGEST_SPAN + 1):
        share = SPAN_P * (1 - SPAN_P) ** (length - 1) / whole
        require_binomial(int((lengths == length).sum()), len(lengths), share)
    assert lengths.max() == LONGEST_SPAN


def test_a_span_ends_with_its_sequence():
    masker = Masker(mask_id=0, is_maskable=np.arange(9) >= 1, real_ids=np.arange(1, 9), units=Spans())
    token_ids = np.full(12, 5)  # without special tokens, so that only the lengths tell where a sequence ends
    for number in range(300):
        positions = masker.mask(token_ids, [4, 4, 4], rate=0.01, seed=(0, number)).positions
        assert len(set(positions // 4)) == 1
        assert (np.diff(positions) == 1).all()


# Of a tokenizer


def test_special_tokens_and_entries_that_are_no_text_are_found():
    tokenizer = byte_level()
    masker = Masker.of(tokenizer)
    assert masker.mask_id == tokenizer.mask_id
    assert set(np.flatnonzero(~masker.is_maskable)) == tokenizer.special_ids
    assert not set(masker.real_ids.tolist()) & tokenizer.special_ids


def test_the_published_tokenizer_gives_real_tokens_only(data_root: Path):
    tokenizer = Tokenizer.from_folder(data_root / "tokenizer" / "modernbert")
    masker = Masker.of(tokenizer, unit="word")
    names = [tokenizer.token(int(each)) for each in masker.real_ids]
    assert not any("unused" in name and name.startswith("[") for name in names)
    assert "|||IP_ADDRESS|||" not in names
    assert {"the", "\u0120the", "."} <= set(names)
    assert 50_200 < len(names) < 50_280


def test_the_published_tokenizer_hides_words_of_any_script_whole(data_root: Path):
    tokenizer = Tokenizer.from_folder(data_root / "tokenizer" / "modernbert")
    masker = Masker.of(tokenizer, unit="word")
    text = (
        "Photosynthesizing bacteria \u0441\u0442\u043e\u043b\u0438\u0446\u0430\u0442\u0430 \u043d\u0430 "
        "caf\u00e9s antidisestablishmentarian \u03b1\u03bb\u03ae\u03b8\u03b5\u03b9\u03b1"
    )
    token_ids, word_ids = words_of(tokenizer, text)
    sizes = Counter(word for word in word_ids if word is not None)
    assert max(sizes.values()) <= 8, "a longer word is cut"
    for number in range(100):
        masked = masker.mask(token_ids, [len(token_ids)], rate=0.3, seed=(0, number))
        chosen = Counter(word_ids[position] for position in masked.positions)
        assert all(count == sizes[word] for word, count in chosen.items())


def test_a_tokenizer_without_a_mask_is_an_error():
    files = {"tokenizer.json": byte_level()._files["tokenizer.json"].replace(b"[MASK]", b"[HIDE]")}
    with pytest.raises(CorpusError, match="has no mask token"):
        Masker.of(Tokenizer(files))


def test_words_of_a_vocabulary_without_marks_are_an_error():
    with pytest.raises(CorpusError, match="whole words cannot be masked"):
        Masker.of(small_tokenizer(), unit="word")


def test_an_unknown_unit_is_an_error():
    with pytest.raises(CorpusError, match="'token', 'word' or 'span', not 'words'"):
        Masker.of(byte_level(), unit="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_a_rate_that_is_no_share_is_an_error(rate):
    with pytest.raises(CorpusError, match="mask rate must lie above 0"):
        plain_masker().mask(*row(10), rate=rate, seed=(0, 0))
