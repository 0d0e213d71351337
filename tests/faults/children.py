"""Child processes by fork, which do one thing and die of it, with all that this process has loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

KILLED = 99
# What changes the disk, as Python's audit events name it (ctypes looks up the swap); moments to die in.
EVENTS = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "ctypes.dlsym"}
TO_WRITE = os.O_WRONLY | os.O_RDWR


def run_child(work: Callable[[], None]) -> tuple[int, str]:
    """How the child ended, and the error that it died of: "FolderError: disk full"."""
    reading, writing = os.pipe()
    pid = start_child(work, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        error = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), error


def start_child(work: Callable[[], None], writing: int | None = None) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        if writing is not None:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(0)


def die_at(moment: int) -> None:
    """Make this process die, without any cleaning up, right before that change of the disk."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == moment:
            os._exit(KILLED)

    def listen(event: str, about: tuple[object, ...]) -> None:
        if event in EVENTS or (event == "open" and about[2] & TO_WRITE):
            step()

    fsync = os.fsync

    def fsync_or_die(handle: int) -> None:
        step()
        fsync(handle)

    os.fsync = fsync_or_die
    sys.addaudithook(listen)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
