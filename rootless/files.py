"""Files that are always whole: written aside, synced, renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data`` so that a reader, or a crash, finds the old or the new whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
