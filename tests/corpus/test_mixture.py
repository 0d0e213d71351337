import numpy as np
import pytest

from modernbert.corpus.mixture import MixedPieces, Mixture, portions
from modernbert.errors import CorpusError
from tests.corpus.in_memory import InMemory, lognormal

MAX_TOKENS, NUM_SPECIALS = 62, 2
SEQ_LEN = MAX_TOKENS + NUM_SPECIALS
SOURCES = InMemory(
    {
        "books": lognormal(40, median=800, sigma=0.5, seed=1),
        "code": lognormal(300, median=60, sigma=1.0, seed=2),
        "prose": lognormal(100, median=200, sigma=1.3, seed=3),
    }
)
# Shares are floats, in tokens.
ROUNDING = 1e-6


def drawn(mixture: Mixture, num_pieces: int, documents: InMemory = SOURCES) -> list[tuple[str, int, int]]:
    """The source, the document and the tokens of so many pieces, special tokens included."""
    found = portions(documents, mixture, max_tokens=MAX_TOKENS, num_specials=NUM_SPECIALS)
    assert sum(portion.share for portion in found) == pytest.approx(1.0)
    mixed = MixedPieces(found, seed=5, num_specials=NUM_SPECIALS)
    pieces = [mixed.draw()[2] for _ in range(num_pieces)]
    return [(piece.source, piece.document, piece.end - piece.start + NUM_SPECIALS) for piece in pieces]


def shares(pieces: list[tuple[str, int, int]]) -> dict[str, float]:
    total = sum(tokens for *_, tokens in pieces)
    sources = {source for source, *_ in pieces}
    return {source: sum(n for s, _, n in pieces if s == source) / total for source in sources}


@pytest.mark.parametrize(
    "weights",
    [
        {"books": 1, "code": 1, "prose": 1},
        {"books": 0.7, "code": 0.25, "prose": 0.05},
        {"code": 3, "books": 1},
    ],
    ids=["equal", "skewed", "two of three"],
)
def test_any_stretch_from_the_beginning_holds_the_mixture_to_a_sequence(weights):
    wanted = {source: weight / sum(weights.values()) for source, weight in weights.items()}
    tokens = dict.fromkeys(weights, 0)
    for source, _, count in drawn(Mixture(weights=weights), 5000):
        tokens[source] += count
        total = sum(tokens.values())
        for each, share in wanted.items():
            ahead = tokens[each] - share * total
            assert -len(weights) * SEQ_LEN * share - ROUNDING <= ahead <= SEQ_LEN + ROUNDING


def test_without_weights_sources_come_by_their_sizes_and_end_an_epoch_together():
    found = portions(SOURCES, Mixture(), max_tokens=MAX_TOKENS, num_specials=NUM_SPECIALS)
    mixed = MixedPieces(found, seed=5, num_specials=NUM_SPECIALS)
    for _ in range(sum(len(portion.table) for portion in found)):
        mixed.draw()
    for (epoch, position, _), portion in zip(mixed.counters(), found, strict=True):
        done = epoch + position / len(portion.table)
        assert done == pytest.approx(1.0, abs=3 / len(portion.table) + 0.01)


@pytest.mark.parametrize("long_share", [0.1, 0.6])
def test_long_documents_get_their_share_of_each_source_that_has_both_kinds(long_share):
    mixture = Mixture(weights={"books": 1, "code": 2, "prose": 1}, long_share=long_share, long_at_least=300)
    found = drawn(mixture, 20_000)
    assert shares(found) == pytest.approx({"books": 0.25, "code": 0.5, "prose": 0.25}, abs=0.005)
    for source in ("code", "prose"):
        lengths = SOURCES.lengths(source)
        assert (lengths >= 300).any()
        tokens = {True: 0, False: 0}
        for each, document, count in found:
            if each == source:
                tokens[bool(lengths[document] >= 300)] += count
        assert tokens[True] / sum(tokens.values()) == pytest.approx(long_share, abs=0.005)


def test_a_source_of_one_kind_keeps_its_share():
    documents = InMemory({"a": [10, 20, 30], "b": [10, 2000]})
    found = drawn(Mixture(weights={"a": 1, "b": 1}, long_share=1.0, long_at_least=100), 4000, documents)
    assert shares(found) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.01)
    assert {document for source, document, _ in found if source == "b"} == {1}


def test_counters_are_all_that_a_mixture_remembers():
    found = portions(SOURCES, Mixture(), max_tokens=MAX_TOKENS, num_specials=NUM_SPECIALS)
    mixed = MixedPieces(found, seed=5, num_specials=NUM_SPECIALS)
    for _ in range(1234):
        mixed.draw()
    again = MixedPieces(found, seed=5, num_specials=NUM_SPECIALS, counters=mixed.counters())
    assert [mixed.draw() for _ in range(3000)] == [again.draw() for _ in range(3000)]


def test_the_table_of_pieces_holds_large_numbers():
    lengths = {"a": [2**33, 5]}
    (portion,) = portions(InMemory(lengths), Mixture(), max_tokens=2**20, num_specials=0)
    first, *_, last = portion.table.pieces(np.arange(len(portion.table)))
    assert (first.start, first.end) == (0, 2**20)
    assert (last.document, last.start, last.end) == (1, 0, 5)
    (before,) = portion.table.pieces([len(portion.table) - 2])
    assert (before.start, before.end) == (2**33 - 2**20, 2**33)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_an_error(weight):
    with pytest.raises(CorpusError, match="weight of source 'code' must be a number above 0"):
        Mixture(weights={"code": weight})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {}}, "without a source"),
        ({"long_share": 1.5}, "long_share must lie between 0 and 1"),
        ({"long_at_least": 0}, "long_at_least must be at least 1"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_an_error(changes, message):
    with pytest.raises(CorpusError, match=message):
        Mixture(**changes)


def test_unknown_sources_are_named_with_those_that_there_are():
    with pytest.raises(
        CorpusError, match="names 'bok', 'cod', but the shards have the sources 'books', 'code'"
    ):
        drawn(Mixture(weights={"cod": 1, "books": 1, "bok": 2}), 1)


def test_a_named_source_without_documents_is_an_error():
    with pytest.raises(CorpusError, match="'b', which has no documents"):
        drawn(Mixture(weights={"a": 1, "b": 1}), 1, InMemory({"a": [3], "b": []}))


def test_an_unnamed_source_without_documents_is_left_out():
    assert shares(drawn(Mixture(), 10, InMemory({"a": [3], "b": []}))) == {"a": 1.0}
