"""What happens to containers, images, volumes and networks, written down by whoever does it.

Owns ROOT/events/events.jsonl and the one before it, events.jsonl.1: an object of
Docker's events API a line. Never fails its caller: what has happened has happened.
``eventview`` reads them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Two files of this size are thousands of events.
_LARGEST_FILE: Final = 4 << 20
# The labels of a hostile image may be of any length.
_LONGEST_VALUE: Final = 1024
_MOST_ATTRIBUTES: Final = 64
_LONGEST_ACTION: Final = 4096


def path(root: Path) -> Path:
    """Return the file that events are appended to now."""
    return root / "events" / "events.jsonl"


def older(file: Path) -> Path:
    """Return what ``file`` becomes when it is full."""
    return file.with_name(f"{file.name}.1")


def record(
    root: Path, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None
) -> None:
    """Append an event: of which kind of thing, what happened, and to which one.

    ``kind`` is container, image, volume or network; ``actor`` its ID, or else its name.
    """
    line = json.dumps(_event(kind, action, actor, attributes or {}), separators=(",", ":"))
    with contextlib.suppress(OSError):  # a full disk, most likely
        _append(path(root), line.encode("ascii") + b"\n")


def _event(kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: attributes[name] for name in list(attributes)[:_MOST_ATTRIBUTES]}
    kept = {name[:_LONGEST_VALUE]: value[:_LONGEST_VALUE] for name, value in kept.items()}
    action = action[:_LONGEST_ACTION]
    moment = time.time_ns()
    event: dict[str, Any] = {}
    if kind in ("container", "image"):
        # What older clients of the API read.
        event = {"status": action, "id": actor}
        if kind == "container":
            event["from"] = kept.get("image", "")
    return event | {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": kept},
        "scope": "local",
        "time": moment // 10**9,
        "timeNano": moment,
    }


def _append(file: Path, line: bytes) -> None:
    """Append a line as a whole: one writer at a time, to the file that has the name now."""
    while True:
        fd = _open(file)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if not _is_current(fd, file):
                continue
            end = os.fstat(fd).st_size
            if end >= _LARGEST_FILE:
                file.rename(older(file))
                continue
            # One that was killed while it wrote may have left no end of line.
            torn = end > 0 and os.pread(fd, 1, end - 1) != b"\n"
            os.write(fd, b"\n" * torn + line)
            return
        finally:
            os.close(fd)


def _open(file: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(file, flags, 0o600)
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(file, flags, 0o600)


def _is_current(fd: int, file: Path) -> bool:
    """Tell whether an open file still has its name, and was not renamed since it was opened."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False
