"""The record of a run: what is written is read, and a resumed run leaves no line it did not live through."""

import json

import pytest

from modernbert.training import journal
from modernbert.training.journal import ACCIDENTS, EVALUATIONS, STEPS, Journal


def row(step: int, **more: object) -> dict[str, object]:
    return {"step": step, "tokens": 10 * step, "loss": 1.0 / step, **more}


def test_lines_come_back_in_their_order(tmp_path):
    log = Journal(tmp_path / "run", cut_after=0)
    for step in (1, 2, 3):
        log.write(STEPS, row(step))
    log.close()
    assert journal.read(tmp_path / "run" / STEPS) == [row(1), row(2), row(3)]


@pytest.mark.parametrize("name", [STEPS, EVALUATIONS, ACCIDENTS])
def test_what_was_written_after_the_checkpoint_is_taken_away(tmp_path, name):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row(step)) + "\n" for step in (1, 2, 3, 4)))
    Journal(tmp_path, cut_after=2).close()
    assert journal.read(path) == [row(1), row(2)]


@pytest.mark.parametrize("cut_short", [b'{"step": 3, "tok', b"\xd1", b'{"step": 3}\x00'])
def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path, cut_short):
    path = tmp_path / STEPS
    path.write_bytes((json.dumps(row(1)) + "\n").encode() + cut_short)
    assert journal.read(path) == [row(1)]
    log = Journal(tmp_path, cut_after=5)
    log.write(STEPS, row(2))
    log.close()
    assert journal.read(path) == [row(1), row(2)]


def test_a_missing_file_has_no_lines(tmp_path):
    assert journal.read(tmp_path / STEPS) == []
