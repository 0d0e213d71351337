"""Bad lines are counted, the first are kept, and too many stop the work."""

from __future__ import annotations

import json

import pytest

from modernbert.corpus.bad_lines import BadLines, where
from modernbert.corpus.documents import BadLine
from modernbert.errors import CorpusError


def counted(num_lines: int, num_bad: int) -> BadLines:
    bad = BadLines(files=["a.jsonl", "b.txt"], num_lines=num_lines)
    for line in range(1, num_bad + 1):
        bad.add(BadLine(file=0, line=line, fault="not JSON", detail=f"fault {line}"))
    return bad


@pytest.mark.parametrize(
    ("num_lines", "num_bad", "share"),
    [(1, 1, 0.01), (20, 10, 0.01), (1000, 10, 0.01), (5000, 50, 0.01), (10, 10, 1.0), (5, 0, 0.0)],
)
def test_few_bad_lines_stop_nothing(num_lines, num_bad, share):
    counted(num_lines, num_bad).require_few(share)


@pytest.mark.parametrize(
    ("num_lines", "num_bad", "share"),
    [(20, 11, 0.01), (1000, 11, 0.01), (5000, 51, 0.01), (10, 1, 0.0), (10**6, 1, 0.0)],
)
def test_too_many_bad_lines_stop_the_work_and_the_first_are_shown(num_lines, num_bad, share):
    with pytest.raises(CorpusError) as raised:
        counted(num_lines, num_bad).require_few(share)
    assert f"{num_bad:,} of {num_lines:,} lines hold no document" in str(raised.value)
    assert "a.jsonl, line 1: fault 1" in str(raised.value)
    assert "line 11" not in str(raised.value)


def test_counts_go_through_json_and_add_up():
    total = BadLines(files=["a.jsonl", "b.txt"])
    for part in (counted(100, 3), counted(100, 9)):
        total.merge(json.loads(json.dumps(part.as_data())))
    assert (total.num_lines, total.faults) == (200, {"not JSON": 12})
    assert [bad.line for bad in total.first] == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7]
    assert total.report().startswith("  not JSON 12\n  a.jsonl, line 1: fault 1\n")


def test_nothing_but_bad_lines_is_no_corpus():
    counted(3, 2).require_documents()
    with pytest.raises(CorpusError, match=r"no documents in a\.jsonl, b\.txt: each of 3 lines is bad"):
        counted(3, 3).require_documents()
    with pytest.raises(CorpusError, match=r"no documents in .*: no lines"):
        counted(0, 0).require_documents()


def test_a_place_is_named_for_a_person():
    assert where(["a.jsonl", "b.txt"], 0, 7) == "a.jsonl, line 7"
    assert where(["a.jsonl", "b.txt"], 1, 0) == "b.txt"
