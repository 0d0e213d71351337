"""Folders of documents, queries and judgements are read whole, and what does not fit together is named."""

import json

import pytest

from modernbert.corpus.retrieval_files import read_judgements, read_retrieval, splits_of
from modernbert.errors import CorpusError

DOCUMENTS = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": 2, "text": "second"}, {"_id": "d3"}]
QUERIES = [{"_id": "q1", "text": "one?"}, {"_id": "q2", "text": "two?"}, {"_id": "q3", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t2\t0\nq2\t2\t1\n"


def write(folder, *, documents=DOCUMENTS, queries=QUERIES, qrels=QRELS):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_folder_gives_documents_and_the_queries_of_a_split(tmp_path):
    found = read_retrieval(write(tmp_path / "set"), "test", spool=tmp_path / "spool")
    assert list(found.documents) == [
        {"id": "d1", "title": "One", "text": "first", "line": 1},
        {"id": "2", "title": "", "text": "second", "line": 2},
        {"id": "d3", "title": "", "text": "", "line": 3},
    ]
    assert [row["id"] for row in found.queries] == ["q1", "q2"]
    assert found.judgements == {"q1": {"d1": 2.0, "2": 0.0}, "q2": {"2": 1.0}}


def test_a_folder_at_an_address_and_compressed_files_are_read(tmp_path):
    import fsspec
    import zstandard

    folder = write(tmp_path / "set")
    system = fsspec.filesystem("memory")
    system.pipe("/set/corpus.jsonl.zst", zstandard.compress((folder / "corpus.jsonl").read_bytes()))
    for name in ("queries.jsonl", "qrels/test.tsv"):
        system.pipe(f"/set/{name}", (folder / name).read_bytes())
    assert splits_of("memory://set/") == ["test"]
    found = read_retrieval("memory://set/", "test", spool=tmp_path / "spool")
    assert len(found.documents) == 3


@pytest.mark.parametrize(
    "qrels",
    ["q1 0 d1 2\nq1 Q0 2 0\nq2 0 2 1\n", QRELS.replace("\n", "\r\n"), QRELS.partition("\n")[2] + "\n"],
)
def test_judgements_of_other_forms_are_the_same(tmp_path, qrels):
    folder = write(tmp_path / "set", qrels=qrels)
    assert read_judgements(folder, "test") == {"q1": {"d1": 2.0, "2": 0.0}, "q2": {"2": 1.0}}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"qrels": QRELS + "q2\td9\t1\nq2\td8\t1\n"},
            "names 2 of 4 document ids that are not there: 'd8', 'd9'",
        ),
        ({"qrels": QRELS + "q9\td1\t1\n"}, "names 1 of 3 query ids that are not there: 'q9'"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, "cannot be measured by: it judges nothing"),
        ({"qrels": ""}, "cannot be measured by: it judges nothing"),
        ({"qrels": "q1\td1\t0\n"}, "cannot be measured by: no document is relevant to any query"),
        (
            {"qrels": "q1\td1\t1\nq1\td1\t2\n"},
            r"another score for the same pair: line 2 \(q1 and d1: 1 and 2\)",
        ),
        ({"qrels": QRELS + "q1 d1\n"}, r"must be query, document and score: line 5 \(found 'q1 d1'\)"),
        ({"documents": [*DOCUMENTS, DOCUMENTS[0]]}, r"an id that stands above: line 4 \(first in line 1\)"),
        ({"queries": [*QUERIES, {"_id": "q1", "text": "again"}]}, r"an id that stands above: line 4"),
        ({"queries": [{"_id": "q1", "text": " "}]}, "nothing in column 'text': line 1"),
        ({"documents": [{"id": "d1", "text": "x"}]}, "has no column '_id'; it has 'id', 'text'"),
    ],
)
def test_what_does_not_fit_together_is_named_and_nothing_is_left(tmp_path, parts, message):
    with pytest.raises(CorpusError, match=message):
        read_retrieval(write(tmp_path / "set", **parts), "test", spool=tmp_path / "spool")
    left = [path.name for path in (tmp_path / "spool").iterdir()] if (tmp_path / "spool").exists() else []
    assert not [name for name in left if name.startswith(".")], "nothing half-written"


def test_missing_parts_and_splits_are_named(tmp_path):
    folder = write(tmp_path / "set")
    with pytest.raises(CorpusError, match=r"has no qrels/dev\.tsv; there are test"):
        read_retrieval(folder, "dev", spool=tmp_path / "spool")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"has no corpus\.jsonl \(nor .*\)\nhint: a folder to measure"):
        read_retrieval(folder, "test", spool=tmp_path / "spool")
    with pytest.raises(CorpusError, match=r"there are none"):
        read_retrieval(tmp_path / "nowhere", "test", spool=tmp_path / "spool")


def test_the_real_sets_are_whole(data_root, tmp_path):
    counts = {"retrieval/cranfield": (1398, 150, 1224), "code/conala": (2810, 472, 494)}
    for name, expected in counts.items():
        found = read_retrieval(data_root / name, "test", spool=tmp_path / name)
        num_judged = sum(map(len, found.judgements.values()))
        assert (len(found.documents), len(found.queries), num_judged) == expected
