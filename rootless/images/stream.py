"""A layer's bytes, decompressed and hashed by a thread ahead of whoever unpacks them.

Owns decompression and its limits, and the diff ID as it is found. Knows
nothing of archives except that tarfile reads it: it is a file that only goes
forward. Used by rootless.images.layer in its process.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

from rootless.errors import RlError
from rootless.images.manifest import LAYER_TYPES

# gzip gets to 1032:1 and zstd much further on purpose-made input; real layers stay
# below 20:1, except for small ones with preallocated files of zeros.
MAX_RATIO: Final = 200
ALWAYS_ALLOWED: Final = 1 << 30
# The most of an archive's own data (PAX records, long names) that is held in
# memory; Go's archive/tar has the same limit.
MAX_HEADER: Final = 1 << 20

_CHUNK: Final = 1 << 18
_PACKED: Final = 1 << 16
_AHEAD: Final = 16  # chunks
_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class LayerStream:
    """The decompressed bytes of a layer.

    Every method raises RlError if the compressed stream is damaged, ends early,
    is a decompression bomb, or is not what its media type says. ``read``,
    ``seek`` and ``tell`` are for tarfile, which reads headers only.
    """

    def __init__(self, fd: int, media_type: str) -> None:
        self._input = _Input(fd)
        self._kind = self._input.kind
        if self._kind != LAYER_TYPES[media_type]:
            raise RlError(f"its media type is {media_type} but its content is {self._kind}")
        self._source = _decompressor(self._kind, self._input)
        self._hash = sha256()
        self._queue: queue.Queue[bytes | Exception] = queue.Queue(_AHEAD)
        self._chunk = memoryview(b"")
        self._position = 0
        self._ended = False
        # What tarfile read last: at the end of an archive, zeros or nothing.
        self.last_header = b""
        threading.Thread(target=self._decompress, daemon=True).start()

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes of an archive's headers, fewer at the end."""
        if not 0 <= size <= MAX_HEADER:
            raise RlError(f"it has a header of {size} bytes")
        self.last_header = b"".join(self._take(size))
        return self.last_header

    def seek(self, position: int) -> None:
        """Go forward to ``position``, at most to the end."""
        if position < self._position:
            raise RlError("one of its headers is damaged")
        for _ in self._take(position - self._position):
            pass

    def tell(self) -> int:
        """Return how many bytes were consumed."""
        return self._position

    def chunks(self, size: int) -> Iterator[memoryview]:
        """Yield exactly ``size`` bytes of a file's content."""
        end = self._position + size
        yield from self._take(size)
        if self._position < end:
            raise RlError("the archive ends in the middle of it")

    def at_end(self) -> bool:
        """Tell whether no byte is left."""
        return not self._fill()

    def drain(self) -> str:
        """Consume what is left, also what follows the archive's end; return the diff ID."""
        while self._fill():
            self._advance(len(self._chunk))
        return f"sha256:{self._hash.hexdigest()}"

    def _take(self, size: int) -> Iterator[memoryview]:
        while size > 0 and self._fill():
            part = self._chunk[:size]
            self._advance(len(part))
            size -= len(part)
            yield part

    def _advance(self, size: int) -> None:
        self._chunk = self._chunk[size:]
        self._position += size

    def _fill(self) -> bool:
        if not self._chunk and not self._ended:
            item = self._queue.get()
            if isinstance(item, Exception):
                self._ended = True
                raise item
            self._chunk = memoryview(item)
            self._ended = not item
        return bool(self._chunk)

    def _decompress(self) -> None:
        produced = 0
        try:
            while chunk := self._source.read(_CHUNK):
                produced += len(chunk)
                if produced > max(ALWAYS_ALLOWED, MAX_RATIO * self._input.consumed):
                    raise RlError(f"a decompression bomb: it expands more than {MAX_RATIO} times")
                self._hash.update(chunk)
                self._queue.put(chunk)
            self._queue.put(b"")
        except RlError as error:
            self._queue.put(error)
        except MemoryError as error:
            self._queue.put(error)
        except EOFError:
            self._queue.put(RlError(f"its {self._kind} stream ends early"))
        except Exception as error:
            self._queue.put(RlError(f"its {self._kind} stream is damaged: {error}"))


class _Input:
    """The compressed bytes: counted, and looked at first for what they are."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._head = b""
        while len(self._head) < 4 and (more := os.read(fd, 4 - len(self._head))):
            self._head += more
        self.consumed = len(self._head)
        kinds = [kind for magic, kind in _MAGIC.items() if self._head.startswith(magic)]
        self.kind = kinds[0] if kinds else "tar"

    def read(self, size: int, /) -> bytes:
        data, self._head = self._head, b""
        if not data:
            data = os.read(self._fd, size)
            self.consumed += len(data)
        return data


def _decompressor(kind: str, source: _Input) -> _Source:
    if kind == "gzip":
        return _GzipReader(source)
    if kind == "zstd":
        from zstandard import ZstdDecompressor

        # It asks for no more of a file than to be read.
        return ZstdDecompressor().stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]
    return source


class _GzipReader:
    """The members of a gzip file, one after the other.

    isal's own file object keeps the interpreter's lock while it decompresses;
    its decompressor does not, and unpacking goes on beside it.
    """

    def __init__(self, source: _Input) -> None:
        from isal import igzip_lib

        self._new: Callable[[], Any] = partial(
            igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP
        )
        self._source = source
        self._member = self._new()

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end; EOFError if a member is not whole."""
        while True:
            packed = b""
            if self._member.eof:
                packed = self._member.unused_data or self._source.read(_PACKED)
                if not packed:
                    return b""
                self._member = self._new()
            elif self._member.needs_input:
                packed = self._source.read(_PACKED)
                if not packed:
                    raise EOFError
            unpacked: bytes = self._member.decompress(packed, size)
            if unpacked:
                return unpacked
