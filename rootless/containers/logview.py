"""The log of a container, read: its last lines, those of some time, and what still comes.

Reads what ``log`` writes, and passes over a line that a kill cut off. Called by
`rl logs`. Following waits for the kernel's word that the file has grown or that
the supervisor has ended; it never polls.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rootless.containers import log
from rootless.containers.store import Container
from rootless.containers.streams import wait
from rootless.kernel import syscalls

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One line of output (without its end if a longer line was divided), and when it came."""

    stream: str
    time: str
    data: bytes


def records(fd: int, rest: bytearray) -> Iterator[Record]:
    """Yield what was appended since the last call; ``rest`` keeps an unfinished record."""
    while chunk := os.read(fd, _CHUNK):
        start = len(rest)
        rest += chunk
        end = rest.rfind(b"\n", start) + 1
        if not end:
            continue
        lines = bytes(rest[:end]).split(b"\n")
        del rest[:end]
        for line in lines:
            if record := _parse(line):
                yield record


def _parse(line: bytes) -> Record | None:
    try:
        value: dict[str, Any] = json.loads(line)
        return Record(value["stream"], value["time"], _bytes(value["log"]))
    except (ValueError, KeyError, TypeError):
        return None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def seek_tail(fd: int, count: int) -> None:
    """Move to where the last ``count`` lines of the log begin."""
    position = os.fstat(fd).st_size
    wanted = count + 1
    while position > 0 and wanted > 0:
        length = min(_CHUNK, position)
        position -= length
        block = os.pread(fd, length, position)
        at = len(block)
        while wanted > 0 and (at := block.rfind(b"\n", 0, at)) >= 0:
            wanted -= 1
        if wanted == 0:
            position += at + 1
    os.lseek(fd, position if count else os.fstat(fd).st_size, os.SEEK_SET)


def moment(text: str) -> datetime:
    """Return the time of a record, to the microsecond."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6] or '0'}").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines of a log are wanted; None leaves a limit out."""

    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    def holds(self, record: Record) -> bool:
        """Tell whether a record is wanted."""
        if self.since is None and self.until is None:
            return True
        when = moment(record.time)
        return (self.since is None or when >= self.since) and (
            self.until is None or when <= self.until
        )


def show(container: Container, wanted: Selection, *, follow: bool, timestamps: bool) -> None:
    """Print a log on our standard streams; with ``follow``, until the container has ended."""
    try:
        fd = os.open(log.path(container.path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    printer = _Printer(wanted, timestamps)
    # Watched before it is read, so that nothing that comes in between is missed.
    watch = syscalls.inotify_init()
    syscalls.inotify_add_watch(watch, f"/proc/self/fd/{fd}", syscalls.IN_MODIFY)
    supervisor = _open_supervisor(container) if follow and container.active else -1
    if wanted.tail is not None:
        seek_tail(fd, wanted.tail)
    rest = bytearray()
    while True:
        for record in records(fd, rest):
            printer.show(record)
        printer.flush()
        if supervisor < 0:
            return
        ready = wait({watch: select.POLLIN, supervisor: select.POLLIN})
        if watch in ready:
            os.read(watch, _CHUNK)
        if supervisor in ready:
            # Once more: it wrote until its end.
            supervisor = -1


def _open_supervisor(container: Container) -> int:
    known = container.state.supervisor
    if known is None or not known.alive():
        return -1
    try:
        return os.pidfd_open(known.pid)
    except ProcessLookupError:
        return -1


class _Printer:
    """Prints records, each on its stream, with the time where a line begins."""

    def __init__(self, wanted: Selection, timestamps: bool) -> None:
        self._wanted = wanted
        self._timestamps = timestamps
        self._streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._inside: set[str] = set()

    def show(self, record: Record) -> None:
        """Print a record if it is wanted."""
        if record.stream not in self._streams or not self._wanted.holds(record):
            return
        if self._timestamps and record.stream not in self._inside:
            self._streams[record.stream].write(record.time.encode() + b" ")
        self._streams[record.stream].write(record.data)
        if record.data.endswith(b"\n"):
            self._inside.discard(record.stream)
        else:
            self._inside.add(record.stream)

    def flush(self) -> None:
        """Have everything out."""
        for stream in self._streams.values():
            stream.flush()
