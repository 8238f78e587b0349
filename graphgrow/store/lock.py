"""One process at a time in a folder: a lock of the operating system, which ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from graphgrow.errors import FolderError

FILE = ".lock"
_AT = 2**30  # the byte that Windows locks: none of those that name the owner, which others may read


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Work in a folder alone; a second process, or a second call in this one, is refused at once.

    The file `.lock`, which stays, names the owner for those who are refused; that it is there says nothing. A child
    process that is forked while the lock is held holds it as well; one that is spawned does not.

    Args:
        folder: made where it is missing.

    Raises:
        FolderError: if another holds the lock, the file cannot be written, or the file system has no locks.
    """
    handle = _taken(Path(folder) / FILE)
    try:
        yield
    finally:
        os.close(handle)  # and with it the lock


def _taken(path: Path) -> int:
    """The file, open and locked."""
    with contextlib.ExitStack() as undo:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            undo.callback(os.close, handle)
            free = _lock(handle)
            if free:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        except OSError as error:
            raise FolderError(f"cannot lock {path}: {error.strerror}; use another folder") from error
        if not free:
            raise FolderError(
                f"another process works in {path.parent} ({_owner(path)}); wait for it, end it, or use another folder"
            )
        undo.pop_all()
        return handle


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") or "unknown"
    return "unknown"


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> bool:
        os.lseek(handle, _AT, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
