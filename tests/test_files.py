"""Files and folders are written whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from modernbert import files
from modernbert.files import (
    file_being_written,
    folder_being_written,
    link_or_copy,
    restore_interrupted,
    sha256,
    write_atomic,
)

SWAPS = [True, False]  # in one step, as Linux can; by two renames, as other systems must


@pytest.fixture(params=SWAPS, ids=["exchange", "renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    return request.param


def write(target: Path, text: str = "new", name: str = "a.txt") -> None:
    with folder_being_written(target) as folder:
        (folder / name).write_text(text)


def write_then_fail(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a b \u00e9.json"
    write_atomic(path, "old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), file_being_written(path) as temporary:
        write_then_fail(temporary)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_link_to_a_file_is_replaced_and_what_it_names_is_left_alone(tmp_path):
    blob = tmp_path / "blob"
    blob.write_text("shared")
    (tmp_path / "link").symlink_to(blob)
    write_atomic(tmp_path / "link", "own")
    assert blob.read_text() == "shared"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_is_replaced_as_a_whole(tmp_path, swap):
    target = tmp_path / "model [v1] \u00e9"
    write(target, "old", "gone.txt")
    write(target, "new")
    assert names(target) == ["a.txt"]
    assert names(tmp_path) == [target.name]


def test_a_failed_folder_leaves_the_old_one(tmp_path, swap):
    target = tmp_path / "model"
    write(target, "old")
    with pytest.raises(ZeroDivisionError), folder_being_written(target) as folder:
        write_then_fail(folder / "a.txt")
    assert (target / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_swap_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "model"
    write(target, "old")
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    rename = os.rename

    def fail_for_the_new(source, destination):
        if ".new-" in str(source):
            raise PermissionError(13, "Permission denied")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_for_the_new)
    with pytest.raises(PermissionError):
        write(target)
    assert (target / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_parents_are_made(tmp_path):
    write(tmp_path / "a" / "b" / "model")
    assert names(tmp_path / "a" / "b") == ["model"]


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        write(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"
    assert names(tmp_path) == ["model"]


def test_a_link_to_a_folder_stays_and_the_folder_behind_it_is_replaced(tmp_path, swap):
    disk = tmp_path / "disk"
    write(disk / "model", "old")
    (tmp_path / "model").symlink_to(disk / "model")
    (tmp_path / "dangling").symlink_to(disk / "other")
    write(tmp_path / "model", "new")
    write(tmp_path / "dangling", "new")
    assert (tmp_path / "model").is_symlink()
    assert (disk / "model" / "a.txt").read_text() == (disk / "other" / "a.txt").read_text() == "new"
    assert names(disk) == ["model", "other"]
    assert names(tmp_path) == ["dangling", "disk", "model"]


@pytest.mark.usefixtures("umask")
def test_permissions_follow_the_umask_and_a_folder_keeps_its_own(tmp_path, swap):
    target = tmp_path / "model"
    write(target)
    write_atomic(tmp_path / "file", "x")
    assert mode(target) == 0o750
    assert mode(target / "a.txt") == mode(tmp_path / "file") == 0o640
    target.chmod(0o2775)
    write(target)
    assert mode(target) == 0o2775


def test_the_umask_of_other_threads_is_never_touched(tmp_path, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(os, "umask", calls.append)
    write(tmp_path / "model")
    write_atomic(tmp_path / "file", "x")
    assert names(tmp_path) == ["file", "model"]
    assert calls == []


@pytest.mark.parametrize("inside", [".", "kept", "gone"])
def test_a_process_that_stands_in_the_folder_stands_in_the_new_one(tmp_path, monkeypatch, swap, inside):
    target = tmp_path / "model"
    write(target, "old")
    for name in ("kept", "gone"):
        (target / name).mkdir()
    monkeypatch.chdir(target / inside)
    with folder_being_written(Path(".") if inside == "." else target) as folder:
        (folder / "a.txt").write_text("new")
        (folder / "kept").mkdir()
    assert Path.cwd() == (target / "kept" if inside == "kept" else target)
    assert (target / "a.txt").read_text() == "new"
    write(Path("sub"), "relative paths lead somewhere")
    assert (Path.cwd() / "sub" / "a.txt").exists()


def test_a_process_that_stands_elsewhere_stays_there(tmp_path, monkeypatch, swap):
    (tmp_path / "model2").mkdir()
    monkeypatch.chdir(tmp_path / "model2")
    write(tmp_path / "model", "old")
    write(tmp_path / "model", "new")
    assert Path.cwd() == tmp_path / "model2"


def test_everything_is_on_the_disk_before_the_folder_gets_its_name(tmp_path, monkeypatch):
    target = tmp_path / "model"
    write(target, "old")
    done: list[object] = []
    exchange, fsync = files._exchange, os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(files, "_exchange", lambda *paths: (done.append("swap"), exchange(*paths))[1])
    with folder_being_written(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b")
        (folder / "a.txt").write_text("a")
    inodes = {path.stat().st_ino for path in (target, *target.rglob("*"))}
    swapped = done.index("swap")
    assert inodes == set(done[:swapped])
    assert tmp_path.stat().st_ino in done[swapped:]


def test_leftovers_of_dead_writers_go_with_the_next_write_and_those_of_living_ones_stay(tmp_path, swap):
    target = tmp_path / "model"
    write(target, "old")
    for name in (".model.new-0123abcd", ".model.old-0123abcd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("dead")
    mine = [".model.new-idea", ".model.newer", ".other.new-0123abcd"]
    for name in mine:
        (tmp_path / name).mkdir()
    with folder_being_written(target) as outer:
        assert names(tmp_path) == sorted([outer.name, "model", *mine])
        write(target, "inner")
        assert outer.exists()
        (outer / "a.txt").write_text("outer")
    assert (target / "a.txt").read_text() == "outer"
    assert names(tmp_path) == sorted(["model", *mine])


def test_leftovers_of_a_dead_file_writer_go_too(tmp_path):
    (tmp_path / ".a.new-0123abcd").write_text("dead")
    write_atomic(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["model", "model [v1]*"])
def test_an_old_folder_left_between_two_renames_is_put_back(tmp_path, name):
    target = tmp_path / name
    left = tmp_path / f".{name}.old-0123abcd"
    left.mkdir()
    (left / "a.txt").write_text("old")
    restore_interrupted(target)
    assert (target / "a.txt").read_text() == "old"
    assert names(tmp_path) == [name]
    restore_interrupted(target)
    restore_interrupted(tmp_path / "nowhere" / "model")


def test_a_write_puts_an_old_folder_back_first(tmp_path):
    left = tmp_path / ".model.old-0123abcd"
    left.mkdir()
    (left / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), folder_being_written(tmp_path / "model"):
        raise ZeroDivisionError
    assert (tmp_path / "model" / "a.txt").read_text() == "old"


def test_writing_inside_a_folder_that_is_being_written_does_not_wait_for_itself(tmp_path, swap):
    with folder_being_written(tmp_path / "checkpoint") as folder:
        write_atomic(folder / "state.json", "{}")
        write(folder / "model", "old")
        write(folder / "model", "new")
    assert names(tmp_path / "checkpoint") == ["model", "state.json"]
    assert (tmp_path / "checkpoint" / "model" / "a.txt").read_text() == "new"


def test_many_writers_and_readers_of_one_folder_see_whole_ones(tmp_path, swap):
    target = tmp_path / "model"
    write(target, "0" * 1000)
    problems: list[object] = []

    def keep_writing(letter: str) -> None:
        try:
            for _ in range(25):
                write(target, letter * 1000)
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=keep_writing, args=(letter,)) for letter in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        restore_interrupted(target)
        try:
            text = (target / "a.txt").read_text()
        except FileNotFoundError:
            # by path there is a moment between renames, and one in which the old folder is being emptied
            continue
        if len(text) != 1000 or len(set(text)) != 1:
            problems.append(text)
    for writer in writers:
        writer.join()
    assert not problems
    assert names(tmp_path) == ["model"]


def test_a_second_name_shares_the_file_and_a_link_stays_a_link(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("a")
    (tmp_path / "link").symlink_to("a")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    link_or_copy(tmp_path / "link", tmp_path / "link2")
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino
    assert (tmp_path / "link2").is_symlink()
    monkeypatch.setattr(os, "link", lambda *args, **kwargs: (_ for _ in ()).throw(PermissionError()))
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "a"
    assert (tmp_path / "a").stat().st_ino != (tmp_path / "c").stat().st_ino


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
