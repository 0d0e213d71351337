"""Pairs, triplets, sets and scored pairs become one of two rows, whatever their columns are called."""

import json

import pytest

from modernbert.corpus.pair_files import (
    PairColumns,
    SetColumns,
    kind_of_pairs,
    read_query_sets,
    read_scored_pairs,
)
from modernbert.errors import CorpusError


def write(path, content):
    path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)))
    return path


def row(query, positives, negatives=(), line=1, **others):
    return {"query": query, "positives": positives, "negatives": list(negatives), "line": line, **others}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.csv", "anchor,positive\nq,p\n", [row("q", ["p"], line=2)]),
        ("x.csv", "question,answer\nq,p\n", [row("q", ["p"], line=2)]),
        (
            "x.csv",
            "query,positive,negative\nq,p,n\nr,s,\n",
            [row("q", ["p"], ["n"], line=2), row("r", ["s"], line=3)],
        ),
        ("x.csv", "anchor,positive,negative_1,negative_2\nq,p,n,m\n", [row("q", ["p"], ["n", "m"], line=2)]),
        ("x.jsonl", [{"query": "q", "pos": ["p", "o"], "neg": ["n", " "]}], [row("q", ["p", "o"], ["n"])]),
        ("x.jsonl", [{"query": "q", "positives": ["p"], "negatives": []}], [row("q", ["p"])]),
        (
            "x.jsonl",
            [{"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [0.9], "neg_scores": [0.1]}],
            [row("q", ["p"], ["n"], scores=[0.9, 0.1])],
        ),
        (
            "x.jsonl",
            [{"query": "q", "positive": "p", "negatives": ["n", "m"], "scores": [3, 2.5, 1]}],
            [row("q", ["p"], ["n", "m"], scores=[3.0, 2.5, 1.0])],
        ),
    ],
)
def test_queries_and_documents_of_every_form(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    assert kind_of_pairs(path) == "sets"
    assert list(read_query_sets(path)) == expected


def test_columns_may_be_named(tmp_path):
    path = write(tmp_path / "x.csv", "a,b,c\nq,p,n\n")
    columns = SetColumns(query="a", positives="b", negatives="c")
    assert list(read_query_sets(path, columns)) == [row("q", ["p"], ["n"], line=2)]
    with pytest.raises(CorpusError, match=r"has no column of queries by a name that is known \(query, .*'c'"):
        list(read_query_sets(path))
    with pytest.raises(CorpusError, match="has no column 'd'"):
        list(read_query_sets(path, SetColumns(query="a", positives="b", negatives="d")))
    path = write(tmp_path / "y.csv", "a,b,c\nq,p,0.5\n")
    pairs = list(read_scored_pairs(path, PairColumns(first="a", second="b", score="c")))
    assert pairs == [{"first": "q", "second": "p", "score": 0.5, "line": 2}]


@pytest.mark.parametrize(
    "header", ["text_a,text_b,score", "sentence1,sentence2,label", "query,document,relevance"]
)
def test_scored_pairs_by_their_common_names(tmp_path, header):
    path = write(tmp_path / "x.csv", f"{header}\nq,p,1\n")
    assert kind_of_pairs(path) == "scored"
    assert list(read_scored_pairs(path)) == [{"first": "q", "second": "p", "score": 1.0, "line": 2}]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"query": "q", "positive": [" "]}], "documents texts or lists of texts: line 1"),
        ([{"query": ["q"], "positive": "p"}], "queries must be texts"),
        ([{"query": "q", "positive": [1]}], "documents texts or lists of texts: line 1"),
        ([{"query": "q", "positive": "p", "scores": [1, 2]}], r"one a document: line 1 \(2 for 1\)"),
        ([{"query": "q", "positive": "p", "scores": ["x"]}], "scores must be numbers"),
        ([{"query": "q", "positive": ""}], "nothing in column 'positive': line 1"),
    ],
)
def test_faults_of_sets_are_named(tmp_path, records, message):
    with pytest.raises(CorpusError, match=message):
        list(read_query_sets(write(tmp_path / "x.jsonl", records)))


def test_faults_of_scored_pairs_are_named(tmp_path):
    path = write(tmp_path / "x.csv", "text_a,text_b,score\na,b,much\na,b,nan\na,b,1\n")
    with pytest.raises(CorpusError, match=r"2 x 'score' must be a number: line 2 \(found 'much'\), line 3"):
        list(read_scored_pairs(path))


def test_a_real_set_of_scored_pairs_is_whole(data_root):
    rows = list(read_scored_pairs(data_root / "pairs/stsb/dev.jsonl"))
    assert len(rows) == 1497
    assert all(0 <= each["score"] <= 5 for each in rows)


@pytest.mark.parametrize("read", [read_query_sets, read_scored_pairs])
def test_a_file_without_rows_says_so(tmp_path, read):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"rows.jsonl has no rows"):
        list(read(tmp_path / "rows.jsonl"))
