"""Events read: those of some time past, and those to come until some time.

Reads what ``events`` writes, and passes over a line that a kill cut off. Waits
for the kernel's word that the file has grown or was replaced; it never polls.
Called by `rl events`.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rootless import events
from rootless.kernel import syscalls
from rootless.kernel.polling import wait

_CHUNK: Final = 1 << 16

Event = dict[str, Any]


def read(root: Path, since: float | None, until: float | None) -> Iterator[Event]:
    """Yield events in the order in which they were written, for ever or ``until`` that time.

    Without either limit only what comes from now on.
    """
    file = events.path(root)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Watched before it is read, so that nothing that comes in between is missed.
    watch = syscalls.inotify_init()
    # The directory: so a file that takes the name is noticed, too.
    changes = syscalls.IN_MODIFY | syscalls.IN_CREATE | syscalls.IN_MOVED_TO
    syscalls.inotify_add_watch(watch, str(file.parent), changes)
    current = _File(file)
    try:
        if since is None and until is None:
            current.skip()
        else:
            yield from (event for event in _older(file, current) if _within(event, since, until))
        while True:
            # Asked first: what is renamed is not written to any more.
            replaced = current.replaced()
            yield from (event for event in current.read() if _within(event, since, until))
            if replaced:
                current.close()
                current = _File(file)
                continue
            rest = None if until is None else until - time.time()
            if rest is not None and rest <= 0:
                return
            if wait({watch: select.POLLIN}, rest):
                os.read(watch, _CHUNK)
    finally:
        current.close()
        os.close(watch)


def _older(file: Path, current: _File) -> Iterator[Event]:
    """Yield what is in the file before this one, unless this one was just renamed to it."""
    try:
        before = _File(events.older(file), create=False)
    except FileNotFoundError:
        return
    try:
        if not before.same(current):
            yield from before.read()
    finally:
        before.close()


def _within(event: Event, since: float | None, until: float | None) -> bool:
    moment = event["timeNano"] / 1e9
    return (since is None or moment >= since) and (until is None or moment <= until)


class _File:
    """One file of events, read as it grows."""

    def __init__(self, file: Path, *, create: bool = True) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._fd = os.open(file, flags, 0o600)
        self._path = file
        self._rest = b""

    def skip(self) -> None:
        """Leave out what is there."""
        os.lseek(self._fd, 0, os.SEEK_END)

    def read(self) -> Iterator[Event]:
        """Yield what was appended since the last call."""
        while chunk := os.read(self._fd, _CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                if event := _parse(line):
                    yield event

    def same(self, other: _File) -> bool:
        """Tell whether both are one file."""
        return os.path.samestat(os.fstat(self._fd), os.fstat(other._fd))

    def replaced(self) -> bool:
        """Tell whether another file has taken the name, and nothing more comes to this one."""
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except FileNotFoundError:
            # Renamed; the next event makes a new one.
            return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _parse(line: bytes) -> Event | None:
    try:
        event: Event = json.loads(line)
        attributes = event["Actor"]["Attributes"]
        texts = (event["Type"], event["Action"], event["Actor"]["ID"], *attributes.values())
        moment = event["timeNano"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event if isinstance(moment, int) and all(isinstance(t, str) for t in texts) else None
