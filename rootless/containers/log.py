"""What a container printed, kept as Docker's json-file driver keeps it.

Owns containers/ID/ID-json.log: one JSON object a line, appended by the
supervisor alone. ``logview`` reads it.
Bytes that are no UTF-8 are lone surrogates in JSON, so that nothing is lost.
"""

from __future__ import annotations

import os
import time
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Final

# An output without an end of line is held back up to this many bytes.
_LONGEST_PIECE: Final = 1 << 21


def path(container: Path) -> Path:
    """Return where the log of the container with this directory is."""
    return container / f"{container.name}-json.log"


class Writer:
    """Appends to a log; each record is written as a whole, and whole lines wherever possible."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._pieces: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        end = os.fstat(self._fd).st_size
        # The last record of a supervisor that was killed may have no end.
        self._torn = end > 0 and os.pread(self._fd, 1, end - 1) != b"\n"

    def write(self, stream: str, data: bytes) -> None:
        """Take what came from ``stream``; all but an unfinished line is in the file afterwards."""
        pieces = self._pieces[stream]
        end = data.rfind(b"\n") + 1
        if end:
            lines = b"".join((*pieces, data[:end])).split(b"\n")[:-1]
            self._append(stream, [line + b"\n" for line in lines])
            pieces.clear()
        if end < len(data):
            pieces.append(data[end:])
        if sum(map(len, pieces)) >= _LONGEST_PIECE:
            self.finish(stream)

    def finish(self, stream: str) -> None:
        """Write the unfinished line of a stream, if there is one."""
        pieces = self._pieces[stream]
        if pieces:
            self._append(stream, [b"".join(pieces)])
            pieces.clear()

    def close(self) -> None:
        """Write what is left and close the file."""
        for stream in self._pieces:
            self.finish(stream)
        os.close(self._fd)

    def _append(self, stream: str, lines: list[bytes]) -> None:
        rest = f',"stream":"{stream}","time":"{_now()}"}}\n'
        records = [
            f'{{"log":{quoted(line.decode("utf-8", "surrogateescape"))}{rest}' for line in lines
        ]
        data = memoryview(("\n" * self._torn + "".join(records)).encode("ascii"))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            self._torn = False
        except OSError:
            # A full disk ends no container; what it says until there is room is not kept.
            self._torn = True


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09}Z"
