"""The bar of texts and tokens: there when a person watches long work, away while the caller prints."""

import io
import re
import sys
import time

import pytest

from modernbert.progress import Pace


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(text):
    """What stands on the line of a terminal in the end."""
    return text.rsplit("\r", 1)[-1].strip()


@pytest.mark.parametrize("total", [400, None])
def test_a_bar_has_texts_and_tokens_a_second_and_goes_while_the_caller_prints(monkeypatch, total):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    pace = Pace(label="embed", total=total, unit="text")
    pace.advance(100, num_tokens=5000)
    assert "embed" not in terminal.getvalue()  # work of less than a second shows nothing
    time.sleep(1.1)
    pace.advance(100, num_tokens=5000)
    line = shown(terminal.getvalue())
    assert "embed" in line
    assert "200/400" in line if total else "200 texts" in line
    assert "texts/s" in line
    rate = float(re.search(r"([\d,]+) tokens/s", line)[1].replace(",", ""))
    assert 0 < rate <= 10_000 / 1.1
    pace.hide()
    assert shown(terminal.getvalue()) == ""
    pace.close()
    assert shown(terminal.getvalue()) == ""


def test_there_is_no_bar_where_nobody_watches(capsys):
    pace = Pace(label="embed", total=1, unit="text")
    time.sleep(1.1)
    pace.advance(1, num_tokens=1)
    pace.hide()
    pace.close()
    assert capsys.readouterr().err == ""
