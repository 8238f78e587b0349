"""Writing files so that a crash leaves the old state or the new one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from graphgrow.errors import LedgerError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one: fsync, rename, fsync of the folder.

    Raises:
        LedgerError: if the file cannot be written; names it and the bytes needed, and leaves the old one.
    """
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        sync(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise LedgerError(f"cannot write {path} ({len(data):,} bytes): {error.strerror}") from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk; Windows keeps its folders by itself."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_plain(path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes; links and special files are refused.

    Raises:
        LedgerError: if it is missing, no plain file, or larger.
    """
    if path.is_symlink() or not path.is_file():
        what = "is not a plain file" if path.exists() else "is missing"
        raise LedgerError(f"{path} {what}; a folder that gg.save wrote holds ledger.json and one safetensors file")
    size = path.stat().st_size
    if size > most:
        raise LedgerError(f"{path} has {size:,} bytes, more than the {most:,} that are read")
    try:
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(f"cannot read {path}: {error.strerror}") from error


def digest(data: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
