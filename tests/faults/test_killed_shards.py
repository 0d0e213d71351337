"""Sharding that is killed at any moment, or has no room, goes on where it was, to the same bytes."""

from __future__ import annotations

import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.errors import CorpusError
from modernbert.text.tokenizer import Tokenizer
from tests.corpus.small_corpus import rows, small_tokenizer, texts, write_lines
from tests.faults.children import KILLED, die_at, run_child, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
NUM_KILLS = 20
CALL = """
import sys
from pathlib import Path
from modernbert.corpus.shard_writing import write_shards
from modernbert.text.tokenizer import Tokenizer
if __name__ == "__main__":
    tokenizer = Tokenizer.from_folder(Path("tokenizer"))
    write_shards(["corpus"], Path("out"), tokenizer=tokenizer, chunk_bytes=8_000, num_workers=2)
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def place(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a corpus and a tokenizer."""
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "corpus" / "books.jsonl.gz", rows(texts(40, seed=1)))
    write_lines(tmp_path / "corpus" / "web.jsonl", rows(texts(20, seed=2)))
    for number, text in enumerate(texts(4, seed=3)):
        write_lines(tmp_path / "corpus" / "code" / f"{number}.py", [text])
    tokenizer.save(tmp_path / "tokenizer")
    return tmp_path


def write(out: str, tokenizer: Tokenizer) -> Shards:
    return write_shards(["corpus"], Path(out), tokenizer=tokenizer, chunk_bytes=8_000, num_workers=1)


def test_sharding_dies_at_every_moment_and_goes_on(place, tokenizer):
    whole = snapshot(write("whole", tokenizer).folder)
    for moment in itertools.count(5, 5):

        def shard(moment=moment) -> None:
            die_at(moment)
            write("out", tokenizer)

        code, error = run_child(shard)
        assert code in (KILLED, 0), error
        if code == 0:
            break
        assert not (place / "out").exists() or snapshot(place / "out") == whole
    assert moment > 20, "the events of a write are no longer seen"
    assert snapshot(place / "out") == whole
    assert sorted(path.name for path in place.iterdir()) == ["corpus", "out", "tokenizer", "whole"]


@pytest.mark.parametrize("first", [1, 2])
def test_one_death_at_any_moment_leaves_nothing_in_the_way(place, tokenizer, first):
    whole = snapshot(write("whole", tokenizer).folder)
    for moment in itertools.count(first, 23):
        out = f"out {moment}"

        def shard(moment=moment, out=out) -> None:
            die_at(moment)
            write(out, tokenizer)

        code, error = run_child(shard)
        assert code in (KILLED, 0), error
        assert snapshot(write(out, tokenizer).folder) == whole
        if code == 0:
            break


@pytest.mark.slow
def test_sharding_by_many_processes_is_killed_by_the_system_at_random_moments(place, tokenizer):
    whole = snapshot(write("whole", tokenizer).folder)
    (place / "shard.py").write_text(CALL)
    generator = random.Random(0)
    started = time.monotonic()
    subprocess.run([sys.executable, "shard.py"], check=True)
    longest = time.monotonic() - started
    assert snapshot(place / "out") == whole
    for each in range(NUM_KILLS):
        (place / "out").rename(place / f"out {each}")
        with subprocess.Popen([sys.executable, "shard.py"], start_new_session=True) as process:
            time.sleep(generator.uniform(0.3 * longest, longest))
            if each % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:  # the workers live on for a moment, and find their master gone
                process.kill()
        subprocess.run([sys.executable, "shard.py"], check=True)
        assert snapshot(place / "out") == whole
    assert not list(place.glob("*unfinished*"))


def test_workers_end_when_their_master_is_killed(place):
    (place / "shard.py").write_text(CALL.replace("8_000", "500"))
    with subprocess.Popen([sys.executable, "shard.py"], start_new_session=True) as process:
        wait_for(lambda: list(place.glob("out.unfinished/*.tokens")))
        process.kill()
    wait_for(lambda: not processes_of(process.pid))


def processes_of(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def wait_for(happens, limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


# the tokenizer's files and the plan, then a record and the tokens
@pytest.mark.parametrize("num_bytes", [1, 400, 2_000, 8_000])
def test_no_room_for_a_file_is_told_and_what_is_done_is_kept(place, tokenizer, num_bytes):
    whole = snapshot(write("whole", tokenizer).folder)

    def shard() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
        write("out", tokenizer)

    code, error = run_child(shard)
    assert code == 1
    assert error.startswith("CorpusError: out could not be written: ")
    assert "File too large" in error
    assert "run the same again, and it goes on" in error
    assert not (place / "out").exists()
    assert snapshot(write("out", tokenizer).folder) == whole


@pytest.fixture
def small_disk(place: Path) -> Iterator[Path]:
    """A file system with room for the tokenizer and a few parts."""
    disk = place / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=72k", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk_keeps_the_parts_and_goes_on_where_there_is_room(
    place, tokenizer, small_disk, num_workers
):
    whole = snapshot(write("whole", tokenizer).folder)

    def shard() -> Shards:
        out = small_disk / "out"
        how = {"chunk_bytes": 8_000, "num_workers": num_workers}
        return write_shards(["corpus"], out, tokenizer=tokenizer, **how)

    with pytest.raises(
        CorpusError, match=r"could not be written: .*No space left on device(.|\n)*are kept in"
    ):
        shard()
    done = set(small_disk.glob("out.unfinished/*.json"))
    assert done
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert snapshot(shard().folder) == whole
