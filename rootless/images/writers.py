"""What is being written to the image store: aside in tmp/, then verified, synced and renamed.

Owns the life of an unfinished blob and of an unfinished layer with the process
that unpacks it. Nothing it writes is visible before ``commit``, and without
one nothing of it stays. Made by the store, used by the pull.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import Final, Self

from rootless.errors import RlError
from rootless.files import cannot_write, create, publish, sync_directory, write_all
from rootless.images.manifest import Descriptor
from rootless.trees import remove_tree

_PIPE_SIZE: Final = 1 << 20  # the most that /proc/sys/fs/pipe-max-size allows by default


class BlobWriter:
    """A blob while it arrives. A context manager: what is not committed is removed."""

    def __init__(self, aside: Path, path: Path, descriptor: Descriptor) -> None:
        from hashlib import sha256

        self.offset = 0  # bytes written: where a broken download goes on
        self._aside = aside
        self._path = path
        self._descriptor = descriptor
        self._hash = sha256()
        self._file = create(aside)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; RlError if the blob gets longer than announced, or cannot be written."""
        self.offset += len(chunk)
        if self.offset > self._descriptor.size:
            raise RlError(
                f"{self._descriptor.digest} is longer than the "
                f"{self._descriptor.size} bytes announced"
            )
        write_all(self._file, chunk, self._path)
        self._hash.update(chunk)

    def commit(self) -> None:
        """Make the blob visible; RlError if its size or digest is not the one announced."""
        if self.offset != self._descriptor.size:
            raise RlError(
                f"{self._descriptor.digest} ended after {self.offset} of "
                f"{self._descriptor.size} bytes"
            )
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            raise RlError(f"what was received for {self._descriptor.digest} is {found}")
        publish(self._file, self._aside, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._aside.unlink(missing_ok=True)


class LayerWriter:
    """A layer while another process unpacks it; see rootless.images.layer.

    A context manager: when it is left without a commit, the process is killed
    and what it unpacked is removed.
    """

    # Where the layer's bytes go, compressed as they came. It stays ours to close:
    # dup it for a stream object that closes what it is given. EPIPE
    # (BrokenPipeError) means that the process gave up; ``commit`` raises its reason.
    fd: int

    def __init__(self, aside: Path, path: Path, diff_id: str, media_type: str) -> None:
        self._aside = aside
        self._path = path
        self._diff_id = diff_id
        self._pid = 0
        try:
            aside.mkdir(0o700)
        except OSError as error:
            raise cannot_write(aside, error) from None
        layer, self.fd = os.pipe()
        self._report, report = os.pipe()
        try:
            self._pid = _spawn(
                ("rootless.images.layer", str(aside), diff_id, media_type), layer, report
            )
        finally:
            os.close(layer)
            os.close(report)
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except PermissionError:
            pass  # the user has many pipes; a small one is only slower

    def commit(self) -> None:
        """Wait until all is unpacked and make the layer visible.

        Blocks, and nothing more can be written. RlError is what was wrong with
        the layer, its diff ID included.
        """
        self._close_pipe()
        with open(self._report, encoding="utf-8", errors="replace", closefd=False) as file:
            said = file.read().strip()
        status = self._wait()
        if status != 0:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise RlError(said or f"the process that unpacked layer {self._diff_id} died ({how})")
        try:
            os.rename(self._aside, self._path)
        except FileExistsError:
            pass  # another process was first
        except OSError as error:
            # rename(2) has two names for a directory that is not empty.
            if not self._path.is_dir():
                raise cannot_write(self._path, error) from None
        sync_directory(self._path.parent)

    def _close_pipe(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _wait(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()
        self._close_pipe()
        os.close(self._report)
        remove_tree(self._aside)


def _spawn(arguments: tuple[str, ...], stdin: int, stderr: int) -> int:
    """Start a Python module as a program of its own; posix_spawn is safe beside threads.

    It finds modules where we do, wherever we were installed, and never in the
    current directory. Alone in its process group: ^C on the terminal is for the
    pull, which then ends it. If the pull is killed, end of input ends it.
    """
    search = os.pathsep.join(filter(os.path.isabs, sys.path))
    return os.posix_spawn(
        sys.executable,
        (sys.executable, "-s", "-P", "-X", "utf8", "-m", *arguments),
        {"PYTHONPATH": search},
        file_actions=((os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stderr, 2)),
        setpgroup=0,
    )
