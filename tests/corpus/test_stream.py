import json
from collections import Counter
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.corpus.mixture import Mixture, portions
from modernbert.corpus.pieces import PieceTable, permutation
from modernbert.corpus.stream import Piece, Step, Stream
from modernbert.errors import CorpusError
from tests.corpus.in_memory import InMemory, lognormal
from tests.training.small_corpus import small_shards

CLS, SEP = 1, 2
BOOKS_AND_CODE = {"books": [70, 5, 33], "code": [12, 3, 3, 9]}
# Rows of `small()`: a change of these numbers is a change of the order of every run.
SOME_ROWS = {
    0: [("books", 0, 0, 6), ("code", 0, 0, 6)],
    1: [("books", 0, 30, 36), ("books", 2, 12, 18)],
    100: [("books", 0, 6, 12), ("books", 0, 18, 24)],
    200: [("books", 1, 0, 5), ("code", 0, 6, 12)],
}


def small(**changes) -> Stream:
    """Sequences of up to 8 tokens, 6 of them text, in rows of 16."""
    given = {"seq_len": 8, "row_tokens": 16, "prefix": [CLS], "suffix": [SEP], "seed": 7} | changes
    return Stream(given.pop("documents", InMemory(BOOKS_AND_CODE)), **given)


def rows_of(step: Step) -> list[tuple[int, list[int], tuple[int, ...]]]:
    return [(row.number, row.token_ids.tolist(), row.lengths) for row in step.rows]


def growing(tokens: int) -> int:
    """Rows of a step, as a batch-size warm-up gives them."""
    return 1 + min(3, tokens // 100)


def drawn(num_steps: int, **changes) -> tuple[Counter[Piece], list[tuple[PieceTable, int, int]]]:
    """How often each piece was given or waits, and each table with its epoch and the pieces drawn in it."""
    documents = changes.setdefault("documents", InMemory(BOOKS_AND_CODE))
    steps = list(islice(small(**changes).steps(lambda tokens: 4), num_steps))
    found = Counter(piece for step, _ in steps for row in step.pieces for piece in row)
    max_tokens = changes.get("seq_len", 8) - 2
    tables = [each.table for each in portions(documents, Mixture(), max_tokens=max_tokens, num_specials=2)]
    _, state = steps[-1]
    for place, number in state["waiting"]:
        found.update(tables[place].pieces([number]))
    places = zip(tables, state["drawn"], strict=True)
    return found, [(table, epoch, position) for table, (epoch, position, _) in places]


def test_a_row_is_its_pieces_with_special_tokens_around_each():
    documents = InMemory(BOOKS_AND_CODE)
    for step, _ in islice(small(documents=documents, prefix=[CLS, CLS]).steps(lambda tokens: 3), 50):
        for row in step.rows:
            expected = []
            for piece in row.pieces:
                text = documents.tokens(piece.source, piece.document, piece.start, piece.end)
                expected.append([CLS, CLS, *text.tolist(), SEP])
            assert row.token_ids.tolist() == list(chain.from_iterable(expected))
            assert row.token_ids.dtype == np.int64
            assert row.lengths == tuple(map(len, expected))
            assert max(row.lengths) <= 8
            assert sum(row.lengths) <= 16
        assert step.num_rows == len(step.rows) == 3
        assert step.num_tokens == sum(len(row.token_ids) for row in step.rows)
        assert step.pieces == tuple(row.pieces for row in step.rows)


def test_the_order_is_the_one_it_always_was():
    step, _ = next(small().steps(lambda tokens: 201))
    for number, row in SOME_ROWS.items():
        found = [(piece.source, piece.document, piece.start, piece.end) for piece in step.pieces[number]]
        assert found == row


def test_rows_are_numbered_and_tokens_counted_from_the_beginning():
    asked = []

    def num_rows(tokens: int) -> int:
        asked.append(tokens)
        return growing(tokens)

    numbers, tokens = [], [0]
    for step, _ in islice(small().steps(num_rows), 12):
        numbers += [row.number for row in step.rows]
        tokens.append(tokens[-1] + step.num_tokens)
        assert step.num_rows == growing(tokens[-2])
    assert numbers == list(range(len(numbers)))
    assert asked == tokens[:-1]


@pytest.mark.parametrize("num_steps", [1, 40, 700])
def test_every_epoch_of_a_source_holds_each_piece_once_and_none_is_lost(num_steps):
    found, places = drawn(num_steps)
    for table, epoch, position in places:
        times = Counter(found[piece] for piece in table.pieces(range(len(table))))
        assert set(times) <= {epoch, epoch + 1}
        assert times[epoch + 1] == position
    assert found.total() == sum(epoch * len(table) + position for table, epoch, position in places)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    seq_len=st.integers(3, 20),
    extra=st.integers(0, 30),
    num_steps=st.integers(1, 60),
)
def test_documents_of_any_lengths_come_whole(lengths, seq_len, extra, num_steps):
    documents = InMemory({"a": lengths})
    found, ((table, epoch, position),) = drawn(
        num_steps, documents=documents, seq_len=seq_len, row_tokens=seq_len + extra
    )
    seen = Counter({document: 0 for document in range(len(lengths))})
    for piece, times in found.items():
        seen[piece.document] += times * (piece.end - piece.start)
    for document, length in enumerate(lengths):
        assert epoch * length <= seen[document] <= (epoch + 1) * length
    assert 0 < position <= len(table)


def test_pieces_of_one_long_document_do_not_follow_each_other():
    lengths = [6 * 500, *[6] * 500]  # one book of as many pieces as there are short texts
    step, _ = next(small(documents=InMemory({"a": lengths})).steps(lambda tokens: 400))
    is_book = [piece.document == 0 for row in step.pieces for piece in row]
    neighbours = np.mean([a == b for a, b in pairwise(is_book)])
    # Of 799 pairs in a random order half are alike; five deviations are 9 %.
    assert abs(neighbours - 0.5) < 0.09


def test_epochs_seeds_and_sources_have_orders_of_their_own():
    def order(name: str, seed: int, epoch: int) -> list[int]:
        return permutation(300, seed, name, epoch).tolist()

    orders = [order("a", 1, 0), order("a", 1, 1), order("a", 2, 0), order("b", 1, 0)]
    assert all(sorted(each) == list(range(300)) for each in orders)
    for place, one in enumerate(orders):
        for other in orders[:place]:
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 10  # 1 is expected


@pytest.mark.parametrize(
    "mixture", [Mixture(), Mixture(long_share=0.5, long_at_least=10)], ids=["all", "long"]
)
def test_from_any_state_the_next_steps_are_the_same_to_the_bit(mixture):
    stream = small(mixture=mixture)
    steps = list(islice(stream.steps(growing), 40))
    for index, (_, state) in enumerate(steps[:-3]):
        kept = json.loads(json.dumps(state))
        again = list(islice(small(mixture=mixture).steps(growing, kept), 3))
        for (step, after), (found, found_after) in zip(steps[index + 1 :], again, strict=False):
            assert rows_of(step) == rows_of(found)
            assert step.num_tokens == found.num_tokens
            assert after == found_after


def test_a_state_is_not_changed_by_what_comes_after_it():
    steps = small().steps(growing)
    _, state = next(steps)
    before = json.dumps(state)
    list(islice(steps, 10))
    assert json.dumps(state) == before


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_out_the_rows_of_one_process(world_size):
    alone = list(islice(small().steps(growing), 30))
    ranks = [list(islice(small(rank=r, world_size=world_size).steps(growing), 30)) for r in range(world_size)]
    for index, (step, state) in enumerate(alone):
        theirs = [rank[index] for rank in ranks]
        assert sorted(row for each, _ in theirs for row in rows_of(each)) == rows_of(step)
        assert all(each.pieces == step.pieces for each, _ in theirs)
        assert all(each.num_tokens == step.num_tokens for each, _ in theirs)
        assert all(their_state == state for _, their_state in theirs)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_another_number_of_processes_goes_on_with_nothing_repeated_or_skipped(before, after):
    alone = [rows_of(step) for step, _ in islice(small().steps(growing), 20)]
    *_, (_, state) = islice(small(rank=before - 1, world_size=before).steps(growing), 8)
    ranks = [islice(small(rank=r, world_size=after).steps(growing, state), 12) for r in range(after)]
    for expected, *found in zip(alone[8:], *ranks, strict=True):
        assert sorted(row for step, _ in found for row in rows_of(step)) == expected


def test_processes_without_a_row_get_none():
    steps = [next(small(rank=rank, world_size=5).steps(lambda tokens: 2))[0] for rank in range(5)]
    assert [len(step.rows) for step in steps] == [1, 1, 0, 0, 0]
    assert len({step.num_tokens for step in steps}) == 1


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("seq_len", {"seq_len": 9}),
        ("row_tokens", {"row_tokens": 17}),
        ("prefix", {"prefix": [3]}),
        ("suffix", {"suffix": [SEP, SEP]}),
        ("seed", {"seed": 8}),
        ("weights", {"mixture": Mixture(weights={"books": 1.0, "code": 2.0})}),
        ("long_share", {"mixture": Mixture(long_share=0.5)}),
        ("long_at_least", {"mixture": Mixture(long_at_least=9)}),
        ("documents", {"documents": InMemory(BOOKS_AND_CODE | {"books": [70, 6, 32]})}),
    ],
)
def test_a_state_of_another_stream_is_refused_by_the_name_of_what_differs(field, changes):
    _, state = next(small().steps(growing))
    with pytest.raises(CorpusError, match=rf"what differs:\n  {field}: .* there, .* here\nhint"):
        next(small(**changes).steps(growing, state))


def test_what_is_no_state_is_refused():
    with pytest.raises(CorpusError, match="another stream"):
        next(small().steps(growing, {}))


def test_rows_of_shards_hold_the_texts_that_were_written(tmp_path: Path):
    shards = small_shards(tmp_path)
    tokenizer = shards.tokenizer()
    stream = Stream(shards, seq_len=2048, row_tokens=2048, prefix=[CLS], suffix=[SEP], seed=0)
    step, _ = next(stream.steps(lambda tokens: 40))
    files = [tmp_path / "text" / f"{source}.jsonl" for source in shards.sources]
    written = {json.loads(line)["text"] for file in files for line in file.read_text().splitlines()}
    found = set()
    for row in step.rows:
        ends = np.cumsum(row.lengths)
        for sequence in np.split(row.token_ids, ends[:-1]):
            assert (sequence[0], sequence[-1]) == (CLS, SEP)
            found.add(tokenizer.decode(sequence[1:-1].tolist()))
    assert found <= written
    assert len(found) > len(written) / 2


def test_one_document_of_one_token_fills_rows_again_and_again():
    documents = InMemory({"a": [1]})
    steps = list(islice(small(documents=documents).steps(lambda tokens: 2), 3))
    for step, _ in steps:
        for row in step.rows:
            assert row.lengths == (3,) * 5  # as many as fit into 16
            assert row.token_ids.tolist() == [CLS, *documents.tokens("a", 0, 0, 1).tolist(), SEP] * 5
    _, state = steps[-1]
    assert state["drawn"][0][2] == 3 * (5 * 6 + len(state["waiting"]))


@pytest.mark.parametrize("lengths", [{}, {"a": []}, {"a": [], "b": []}], ids=["no source", "empty", "two"])
def test_nothing_to_stream_is_an_error(lengths):
    with pytest.raises(CorpusError, match="no documents"):
        small(documents=InMemory(lengths))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_tokens": 7}, "a row of 7 tokens cannot hold a sequence of 8"),
        ({"seq_len": 2}, "no room for text beside its 2 special tokens"),
        ({"seed": -1}, "seed must be 0 or above"),
    ],
)
def test_numbers_that_make_no_sense_are_errors(changes, message):
    with pytest.raises(CorpusError, match=message):
        small(**changes)


def test_a_step_without_rows_is_an_error():
    with pytest.raises(CorpusError, match=r"at least one row; num_rows\(0\) gave 0"):
        next(small().steps(lambda tokens: 0))


@pytest.mark.parametrize(
    ("seq_len", "row_tokens"), [(1024, 1024), (1024, 8192), (1024, 16384), (8192, 8192), (8192, 16384)]
)
@pytest.mark.parametrize("median", [100, 2000])
def test_rows_of_texts_of_natural_lengths_are_99_percent_full(seq_len, row_tokens, median):
    lengths = lognormal(20_000, median=median, sigma=1.2)
    stream = Stream(
        InMemory({"a": lengths}),
        seq_len=seq_len,
        row_tokens=row_tokens,
        prefix=[CLS],
        suffix=[SEP],
        seed=0,
        rank=1_000_000,  # of which no row is asked for, so that no token is read
        world_size=1_000_001,
    )
    num_rows = 2_000_000 // row_tokens
    step, _ = next(stream.steps(lambda tokens: num_rows))
    assert step.num_tokens / (num_rows * row_tokens) >= 0.99
