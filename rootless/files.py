"""Files that are always whole: written aside, synced, renamed.

Owns that order and the wording of its failures; knows nothing of what is
written. Called by whoever keeps state on disk. ``read_text`` is for what others
wrote, the kernel or the administrator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootless.errors import RlError


def read_text(path: str) -> str:
    """Return the text of a file, "" if it is not there or cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data``: a reader, or a crash, finds the old or the new as a whole.

    Which of them after a crash of the machine, is not waited for. Not ``durable``, the promise
    holds for readers and for a kill only.
    """
    aside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    with _written(aside, path, data) as fd:
        if durable:
            _sync(fd, path)
        aside.rename(path)


def write_file(aside: Path, path: Path, data: bytes) -> None:
    """Write a small file so that it is there as a whole or not at all, and stays there."""
    with _written(aside, path, data) as fd:
        publish(fd, aside, path)


@contextmanager
def _written(aside: Path, path: Path, data: bytes) -> Iterator[int]:
    """Have a file ``aside`` while it is on its way to ``path``."""
    fd = create(aside, path)
    try:
        write_all(fd, data, path)
        yield fd
    finally:
        os.close(fd)
        aside.unlink(missing_ok=True)


def _sync(fd: int, path: Path) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise cannot_write(path, error) from None


def publish(fd: int, aside: Path, path: Path) -> None:
    """Sync a file that was written aside and rename it to ``path``."""
    try:
        os.fsync(fd)
        os.rename(aside, path)
        sync_directory(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive a crash of the machine."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path, called: Path | None = None) -> int:
    """Return a descriptor of a new file that only its owner may read; errors say ``called``."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(called or path, error) from None


def write_all(fd: int, data: bytes | memoryview, path: Path) -> None:
    """Write all of ``data``; ``path`` is what an error calls the file."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> RlError:
    """Say which file the disk did not take, and why."""
    return RlError(f"cannot write {path}: {error.strerror}")
