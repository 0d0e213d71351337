"""Writing files so that a kill or a full disk leaves the old content whole.

    .model.new-3f9a   written and flushed beside the target, while its writer holds a lock on it
    model             swapped with it in one step (Linux), or with two renames by way of .model.old-3f9a

A file is renamed over its target in the same way. What a killed writer left is known by its free lock, and
the next write to the same target removes it.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no locks on folders, so what a killed writer left stays
    fcntl = None

_BEING_WRITTEN = re.compile(r"\..+\.new-[0-9a-f]{8}")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`: afterwards the file holds all of it, or what it held before."""
    with file_being_written(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def file_being_written(target: Path) -> Generator[Path]:
    """Yield the path of an empty file; when the block ends well it becomes `target`, in one step.

    A link of that name is replaced, not followed: files of the hub's cache are links into a shared store.
    """
    target = Path(os.path.abspath(target))
    temporary, lock = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}"), None
    try:  # from before it is there: Ctrl-C may come at any moment
        with _locked(target.parent):
            _remove_dead(target)
            temporary.touch(exist_ok=False)
            lock = _lock(temporary)
        yield temporary
        _fsync(temporary)
        os.replace(temporary, target)
        fsync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _unlock(lock)


@contextlib.contextmanager
def folder_being_written(target: Path) -> Generator[Path]:
    """Yield an empty temporary folder; when the block ends well it becomes `target`, replacing an old one.

    Files of an old `target` that the block did not write are gone afterwards: the new folder is the whole
    truth. Where the system cannot swap two folders in one step, a kill between two renames leaves the old
    folder complete under `.NAME.old-*`, and the next read or write of the same target puts it back. A link is
    followed. Where this process stands in the old `target`, it stands in the new one afterwards.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = target.with_name(f".{target.name}.new-{secrets.token_hex(4)}"), None
    try:
        with _locked(target.parent):
            _put_back(target)
            _remove_dead(target)
            temporary.mkdir()
            lock = _lock(temporary)
        yield temporary
        _fsync_tree(temporary)
        with _locked(target.parent):
            if target.exists():
                shutil.copymode(target, temporary)
            with _standing_where_it_was(target):
                _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _unlock(lock)


@contextlib.contextmanager
def held(folder: Path) -> Generator[bool]:
    """Hold a folder as ours for the length of the block; yields False where another process holds it.

    The hold ends with the process, however it ends. Where the system has no locks nobody is kept out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".held"
    path.touch()
    lock = _lock(path)
    try:
        yield lock is not None or fcntl is None
    finally:
        _unlock(lock)


def restore_interrupted(target: Path) -> None:
    """Put back the folder that a kill between two renames left under another name, if there is one."""
    if target.exists():
        return
    target = Path(os.path.realpath(target))
    with contextlib.suppress(OSError):  # who may not look or rename here finds no folder, and says so
        if _neighbours(target, "old"):
            with _locked(target.parent):
                _put_back(target)


@contextlib.contextmanager
def kept_still(target: Path) -> Generator[None]:
    """Keep writers of `target` from putting another in its place while the block reads it.

    Where the system has no locks, or this one may not be had, nobody is kept out.
    """
    with _locked(Path(os.path.realpath(target)).parent):
        yield


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, which costs nothing; copy it where the file system has no second names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; systems that cannot open a folder make them so themselves."""
    with contextlib.suppress(OSError):
        _fsync(folder)


@contextlib.contextmanager
def _standing_where_it_was(target: Path) -> Generator[None]:
    """Where we stand inside `target`, go to the same place in the folder that gets its name: the old one is
    removed under our feet, and no relative path would lead anywhere.
    """
    try:
        place = Path.cwd()
    except OSError:  # removed by somebody else
        place = None
    yield
    if place is not None and place.is_relative_to(target):
        os.chdir(place if place.is_dir() else target)


def _put_in_place(new: Path, target: Path) -> None:
    """Give the folder `new` the name `target`; a folder of that name goes away. The caller holds the lock."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        aside = target.with_name(new.name.replace(".new-", ".old-"))
        os.rename(target, aside)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(aside, target)
            raise
        fsync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    fsync_folder(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _put_back(target: Path) -> None:
    left_over = _neighbours(target, "old")
    if left_over and not target.exists():
        os.rename(max(left_over, key=lambda path: path.stat().st_mtime), target)


def _remove_dead(target: Path) -> None:
    """Remove what killed writers of `target` left; the caller holds the lock, so living ones hold theirs."""
    for path in _neighbours(target, "new"):
        lock = _lock(path)
        if lock is not None:
            _remove(path)
        _unlock(lock)
    if target.exists():
        for path in _neighbours(target, "old"):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _neighbours(target: Path, kind: str) -> list[Path]:
    """The temporary names beside `target` of this kind, "new" or "old"."""
    name = re.compile(rf"\.{re.escape(target.name)}\.{kind}-[0-9a-f]{{8}}")
    if not target.parent.is_dir():
        return []
    return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Keep other writers inside `folder` waiting for the moment of choosing or swapping names.

    A folder that is being written is its writer's alone, who holds its lock and would wait for itself.
    """
    is_ours = _BEING_WRITTEN.fullmatch(folder.name) is not None
    lock = None if is_ours else _lock(folder, waits=True)
    try:
        yield
    finally:
        _unlock(lock)


def _lock(path: Path, *, waits: bool = False) -> int | None:
    """Lock a file or folder until `_unlock` or our death; None where another holds it, or nobody can."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except OSError:  # held by another; or a file system without locks
        if handle is not None:
            os.close(handle)
        return None
    return handle


def _unlock(lock: int | None) -> None:
    if fcntl is not None and lock is not None:
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would not do: a child forked meanwhile holds it too
        os.close(lock)


def _fsync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(PermissionError):  # a kept file that is not ours to read
                    _fsync(path)
        fsync_folder(Path(parent))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
