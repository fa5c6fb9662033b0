"""The log of a container, read: its last lines, those of some time, and what still comes.

Reads what ``log`` writes, and passes over a line that a kill cut off. Called by
`rl logs`. Following waits for the kernel's word that the file has grown or that
the supervisor has ended; it never polls.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from rootless.channel import Channel
from rootless.containers import log
from rootless.containers.console import connect
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.kernel import syscalls
from rootless.kernel.polling import wait

_CHUNK: Final = 1 << 20


class Record(NamedTuple):
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


def seek_tail(fds: Sequence[int], count: int) -> None:
    """Move in the files of a log, the oldest first, to where its last ``count`` lines begin."""
    for fd in reversed(fds):
        count -= _seek_tail(fd, count)


def _seek_tail(fd: int, count: int) -> int:
    """Move to where the last ``count`` lines of a file begin; return how many there are."""
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
    return count if wanted <= 0 else count + 1 - wanted


def moment(text: str) -> datetime:
    """Return the time of a record, to the microsecond."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6] or '0'}").replace(tzinfo=UTC)


class Selection(NamedTuple):
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
    printer = _Printer(wanted, timestamps)
    # Asked before the files are opened, so that none that comes in between is missed.
    news = _News.of(container) if follow and container.active else None
    fds = _open(log.path(container.path))
    if wanted.tail is not None:
        seek_tail(fds, wanted.tail)
    for fd in fds[:-1]:
        printer.show_all(fd, bytearray())
    if news is not None:
        _follow(log.path(container.path), fds, news, printer, wanted.until)
    elif fds:
        printer.show_all(fds[-1], bytearray())


def _open(file: Path) -> list[int]:
    """Open all files of a log as they are at one moment, the oldest first."""
    while True:
        fds: list[int] = []
        for number in itertools.count():
            try:
                fds.append(os.open(log.older(file, number), os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                # A kill between two renames leaves one gap.
                if number and not log.older(file, number + 1).exists():
                    break
        if not fds or _has_name(fds[0], file):
            return fds[::-1]
        # It was renamed meanwhile: some are here twice, or not at all.
        for fd in fds:
            os.close(fd)


def _has_name(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False


def _follow(
    file: Path, fds: list[int], news: _News, printer: _Printer, until: datetime | None
) -> None:
    """Print what comes to the last of ``fds``, and to the files after it.

    Nothing comes to one after the next was announced.
    """
    watch = syscalls.inotify_init()
    rest = bytearray()
    while True:
        if fds:
            # Watched before it is read.
            syscalls.inotify_add_watch(watch, f"/proc/self/fd/{fds[-1]}", syscalls.IN_MODIFY)
        while True:
            announced = news.take(fds)
            if fds:
                printer.show_all(fds[-1], rest)
            if announced or news.ended:
                break
            seconds = (until - datetime.now(UTC)).total_seconds() if until else None
            if seconds is not None and seconds <= 0:
                return
            if watch in wait({watch: select.POLLIN, news.fileno(): select.POLLIN}, seconds):
                os.read(watch, _CHUNK)
        if announced:
            # Until now open, for what was announced might have been one of them.
            for fd in fds:
                os.close(fd)
            fds = [announced]
            rest.clear()
        else:
            break
    # Killed, the supervisor said no word either; but then this is the last file.
    if not news.complete and not (fds and _has_name(fds[-1], file)):
        raise RlError("the log was written faster than it was read: lines are missing from here on")


class _News:
    """What the supervisor tells of a log: which files took its name, in order, and its end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.ended = False
        self.complete = False
        """Whether it ended with the container, and not because we were too slow."""

    @classmethod
    def of(cls, container: Container) -> _News | None:
        """Ask the supervisor of a container, as soon as it listens; None if it has ended."""
        supervisor = container.state.supervisor
        watch = syscalls.inotify_init()
        try:
            syscalls.inotify_add_watch(watch, str(container.path), syscalls.IN_CREATE)
            while supervisor is not None and supervisor.alive():
                channel = connect(container.path)
                if channel is not None:
                    channel.send({"follow": True})
                    channel.receive()
                    return cls(channel)
                pidfd = os.pidfd_open(supervisor.pid)
                if watch in wait({watch: select.POLLIN, pidfd: select.POLLIN}):
                    os.read(watch, _CHUNK)
                os.close(pidfd)
        except (FileNotFoundError, ProcessLookupError):
            pass
        finally:
            os.close(watch)
        return None

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._channel.fileno()

    def take(self, known: Sequence[int]) -> int:
        """Return a descriptor of the next file, if there is one that is not ``known``, or 0."""
        while not self.ended and wait({self.fileno(): select.POLLIN}, 0):
            message, fds = self._channel.receive()
            self.ended = message is None
            self.complete |= message is not None and "ended" in message
            for fd in fds:
                # A description of our own: where it is read is nobody else's affair.
                own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
                os.close(fd)
                if not any(os.path.samestat(os.fstat(own), os.fstat(other)) for other in known):
                    return own
                os.close(own)
        return 0


class _Printer:
    """Prints records, each on its stream, with the time where a line begins."""

    def __init__(self, wanted: Selection, timestamps: bool) -> None:
        self._wanted = wanted
        self._timestamps = timestamps
        self._streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._inside: set[str] = set()

    def show_all(self, fd: int, rest: bytearray) -> None:
        """Print what was appended to a file since the last call."""
        for record in records(fd, rest):
            self.show(record)
        self.flush()

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
