"""Writing files so that a kill or a full disk leaves the old content whole.

A file is written beside its target, flushed to the disk and renamed over it. A folder is written the same way:
all files into a temporary neighbour, then one rename; an old folder is moved aside first and put back on failure.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path`: afterwards the file holds all of it, or what it held before."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def folder_being_written(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; when the block ends well it becomes `target`, replacing an old one.

    Files of an old `target` that the block did not write are gone afterwards: the new folder is the whole truth.
    The one moment in which neither name exists is between two renames; a kill there leaves the old folder
    complete under `.NAME.old-*`, and the next write to the same target puts it back first.
    """
    target = Path(os.path.abspath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    restore_interrupted(target)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.new-"))
    try:
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _fsync(file)
        fsync_folder(temporary)
        _replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore_interrupted(target: Path) -> None:
    """Put back the folder that a kill between two renames left under another name, if there is one."""
    if target.exists() or not target.parent.is_dir():
        return
    left_over = sorted(target.parent.glob(f".{target.name}.old-*"))
    if left_over:
        os.rename(left_over[-1], target)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; systems that cannot open a folder make them so themselves."""
    with contextlib.suppress(OSError):
        _fsync(folder)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace_folder(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
        fsync_folder(target.parent)
        return
    aside = target.parent / f".{target.name}.old-{new.name.rsplit('-', 1)[-1]}"
    os.rename(target, aside)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(aside, target)
        raise
    fsync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
