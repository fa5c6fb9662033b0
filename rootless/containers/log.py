"""What a container printed, kept as Docker's json-file driver keeps it.

Owns containers/ID/ID-json.log, and .1, .2… before it: one JSON object a line,
appended by the supervisor alone. ``logview`` reads it. Bytes that are no UTF-8
are lone surrogates in JSON, so that nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Final, NamedTuple

from rootless.errors import RlError

# An output without an end of line is held back up to this many bytes.
_LONGEST_PIECE: Final = 1 << 21

# Docker's, which are decimal.
_UNITS: Final = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MOST_FILES: Final = 1000


class Limits(NamedTuple):
    """How large a log may become: ``size`` bytes a file (None: any), ``files`` of them."""

    size: int | None = None
    files: int = 1

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Limits:
        """Read the json-file driver's options, --log-opt."""
        for name in options:
            if name not in ("max-size", "max-file"):
                raise RlError(f"unknown log option {name!r} (max-size and max-file are known)")
        size = _parse_size(options["max-size"]) if "max-size" in options else None
        files = options.get("max-file", "1")
        if not files.isdecimal() or not 1 <= int(files) <= _MOST_FILES:
            raise RlError(f"invalid max-file {files!r}: a number from 1 to {_MOST_FILES}")
        if size is None and int(files) > 1:
            raise RlError("max-file needs max-size: without it there is one file")
        return cls(size, int(files))


UNLIMITED: Final = Limits()


def _parse_size(text: str) -> int:
    number = text.lower().removesuffix("b").rstrip("kmgt")
    unit = text.lower()[len(number) :].removesuffix("b")
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        raise RlError(f"invalid max-size {text!r}: expected such as 10m or 500k")
    return size


def path(container: Path) -> Path:
    """Return where the log of the container with this directory is."""
    return container / f"{container.name}-json.log"


def older(file: Path, number: int) -> Path:
    """Return what a log becomes when it was replaced ``number`` times."""
    return file.with_name(f"{file.name}.{number}") if number else file


class Writer:
    """Appends to a log; each record is written as a whole, and whole lines wherever possible.

    ``named`` is told the descriptor of each file that has the log's name from now on.
    """

    def __init__(
        self,
        file: Path,
        limits: Limits = UNLIMITED,
        named: Callable[[int], None] | None = None,
    ) -> None:
        self._path = file
        self._limits = limits
        self._named = named
        self._unfinished = {"stdout": bytearray(), "stderr": bytearray()}
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        # The last record of a supervisor that was killed may have no end.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        self._lost = 0
        self._reason = ""
        self._announce()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, stream: str, data: bytes) -> None:
        """Take what came from ``stream``; all but an unfinished line is in the file afterwards."""
        unfinished = self._unfinished[stream]
        end = data.rfind(b"\n") + 1
        if end:
            lines = bytes(unfinished + data[:end]).split(b"\n")[:-1]
            self._append(stream, [line + b"\n" for line in lines])
            unfinished.clear()
        unfinished += data[end:]
        if len(unfinished) >= _LONGEST_PIECE:
            self.finish(stream)

    def finish(self, stream: str) -> None:
        """Write the unfinished line of a stream, if there is one."""
        unfinished = self._unfinished[stream]
        if unfinished:
            self._append(stream, [bytes(unfinished)])
            unfinished.clear()

    def close(self) -> None:
        """Write what is left and close the file."""
        for stream in self._unfinished:
            self.finish(stream)
        os.close(self._fd)

    def _append(self, stream: str, lines: list[bytes]) -> None:
        if self._lost and not self._tell_of_loss():
            self._lost += len(lines)
            return
        for portion in self._portions(_records(stream, lines)):
            kept = self._write(portion)
            self._lost += len(portion) - kept

    def _tell_of_loss(self) -> bool:
        """Say where the lines that are missing would be, as soon as there is room again."""
        said = f"rl: {self._lost} lines of the log could not be written: {self._reason}\n"
        if not self._write(_records("stderr", [said.encode()])):
            return False
        self._lost = 0
        return True

    def _portions(self, records: list[bytes]) -> Iterator[list[bytes]]:
        """Divide records so that no file has more than one that goes beyond the limit."""
        limit = self._limits.size
        portion: list[bytes] = []
        size = self._size
        for record in records:
            if limit is not None and size >= limit:
                if portion:
                    yield portion
                self._rotate()
                portion, size = [], self._size
            portion.append(record)
            size += len(record)
        yield portion

    def _write(self, records: list[bytes]) -> int:
        """Append records and return how many are there as a whole.

        A full disk ends no container; what it says until there is room is not kept.
        """
        data = memoryview(b"\n" * self._torn + b"".join(records))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            if not self._lost:
                _complain(error)
            self._reason = error.strerror or str(error)
            self._torn = True
            return bytes(data[:written]).lstrip(b"\n").count(b"\n")
        finally:
            self._size += written
        self._torn = False
        return len(records)

    def _rotate(self) -> None:
        """Begin a new file; the oldest goes."""
        try:
            for number in range(self._limits.files - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    older(self._path, number - 1).rename(older(self._path, number))
            if self._limits.files == 1:
                self._path.unlink(missing_ok=True)
            new = self._open()
        except OSError as error:
            # It goes on in the one that is open.
            _complain(error)
            return
        os.close(self._fd)
        self._fd, self._size, self._torn = new, 0, False
        self._announce()

    def _announce(self) -> None:
        if self._named is not None:
            self._named(self._fd)


def _records(stream: str, lines: list[bytes]) -> list[bytes]:
    rest = f',"stream":"{stream}","time":"{_now()}"}}\n'
    return [
        f'{{"log":{quoted(line.decode("utf-8", "surrogateescape"))}{rest}'.encode("ascii")
        for line in lines
    ]


def _complain(error: OSError) -> None:
    """Leave a note with our own errors, if that is possible."""
    with contextlib.suppress(OSError):
        print(f"{_now()} the log cannot be written: {error}", file=sys.stderr, flush=True)  # noqa: T201


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}Z"
