"""What flows in and out of a container: from its descriptors to the log and to whoever looks on.

Owns the copying; knows nothing of processes. Nothing of ours is handed in
directly: a container that held our terminal could type into it. Called by the
supervisor; ``Pump`` also by those who attach.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
from typing import Final

from rootless.containers import log
from rootless.kernel.polling import wait

_CHUNK: Final = 65536
# More than the kernel keeps of what was written to a terminal.
_LARGEST_TERMINAL: Final = 1 << 20


class Sink:
    """A descriptor that takes a stream and is never waited for."""

    def __init__(self, fd: int) -> None:
        self.fd = _reopened(fd)
        self.pending = b""
        self.error: OSError | None = None
        self.hung_up = False
        """Whether it was a terminal that is gone."""
        # A pipe that poll calls writable takes PIPE_BUF without waiting, pipe(7).
        patient = stat.S_ISREG(os.fstat(self.fd).st_mode) or not os.get_blocking(self.fd)
        self._at_once = _CHUNK if patient else select.PIPE_BUF

    def advance(self) -> bool:
        """Write of what is pending; False when it takes no more, ever.

        ``error`` then tells why, unless it is just that nobody reads it any more.
        """
        try:
            written = os.write(self.fd, self.pending[: self._at_once])
        except BlockingIOError:
            return True
        except OSError as error:
            self.hung_up = error.errno == errno.EIO
            if error.errno not in (errno.EPIPE, errno.EIO):
                self.error = error
            return False
        self.pending = self.pending[written:]
        return True

    def flush(self) -> None:
        """Write of what is pending as much as is taken at once."""
        while self.pending and wait({self.fd: select.POLLOUT}, 0):
            if not self.advance():
                self.pending = b""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def _reopened(fd: int) -> int:
    """Return a description of our own of a pipe or terminal, so that no write to it can block."""
    if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            own = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            return fd
        os.close(fd)
        return own
    return fd


class Pump:
    """Copies ``source`` to ``sink`` and never waits for either."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.pending = b""
        patient = not os.get_blocking(sink)
        self._at_once = _CHUNK if patient else select.PIPE_BUF

    def interest(self) -> tuple[int, int]:
        """Return (descriptor, poll events) of what it waits for now."""
        return (self.sink, select.POLLOUT) if self.pending else (self.source, select.POLLIN)

    def advance(self) -> bool:
        """Copy what is ready; False when there is no more to copy, ever."""
        if not self.pending:
            try:
                self.pending = self.read()
            except BlockingIOError:
                return True
            except OSError:
                # EIO: a terminal is gone.
                return False
            if not self.pending or not wait({self.sink: select.POLLOUT}, 0):
                return bool(self.pending)
        try:
            written = os.write(self.sink, self.pending[: self._at_once])
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.pending = self.pending[written:]
        return True

    def read(self) -> bytes:
        """Return the next of the source, b"" at its end."""
        return os.read(self.source, _CHUNK)


class Output:
    """One output of a container: into the log, and to all sinks at the speed of the slowest."""

    def __init__(self, name: str, source: int) -> None:
        self.name = name
        self.source = source
        self.sinks: list[Sink] = []

    def interests(self) -> dict[int, int]:
        """Return what it waits for: its sinks, or else its source."""
        waiting = {sink.fd: select.POLLOUT for sink in self.sinks if sink.pending}
        return waiting or {self.source: select.POLLIN}

    def read(self, writer: log.Writer | None) -> bool:
        """Read what is there; False at the end."""
        try:
            return bool(self.take(writer))
        except BlockingIOError:
            return True

    def take(self, writer: log.Writer | None) -> bytes:
        """Read some, for the log and the sinks, and return it; b"" at the end."""
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            raise
        except OSError:
            # EIO: the last process that had the terminal is gone.
            return b""
        if writer is not None:
            writer.write(self.name, data)
        for sink in self.sinks:
            sink.pending += data
        return data


class Streams:
    """The container's side of all that flows.

    Without a terminal the container gets pipes (and the null device for an input
    that nobody asked for); with one it makes a terminal of its own and gives us
    the master.
    """

    def __init__(self, *, terminal: bool, interactive: bool, writer: log.Writer | None) -> None:
        self.container_ends: list[int] = []
        self.outputs: list[Output] = []
        self.input = -1
        self._interactive = interactive
        self._writer = writer
        self._master = -1
        if not terminal:
            self._make_pipes()

    def _make_pipes(self) -> None:
        if self._interactive:
            theirs, self.input = os.pipe()
            os.set_blocking(self.input, False)
        else:
            theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.container_ends.append(theirs)
        for name in ("stdout", "stderr"):
            source, theirs = os.pipe()
            self.outputs.append(Output(name, source))
            self.container_ends.append(theirs)

    def connect(self, masters: list[int]) -> None:
        """Take the master of the container's terminal, if it made one."""
        for master in masters:
            os.set_blocking(master, False)
            self._master = master
            self.outputs.append(Output("stdout", master))
            if self._interactive:
                self.input = master

    @property
    def has_terminal(self) -> bool:
        """Whether the container has a terminal, and somebody it."""
        return self._master >= 0

    def copy_window_size(self, terminal: int) -> None:
        """Give the container's terminal the size of another, where there are two."""
        if self._master >= 0:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def interests(self) -> dict[int, int]:
        """Return what to poll for: descriptor -> events."""
        interests: dict[int, int] = {}
        for output in self.outputs:
            for fd, events in output.interests().items():
                interests[fd] = interests.get(fd, 0) | events
        return interests

    def advance(self, ready: set[int]) -> list[Sink]:
        """Copy what is ready; return the sinks that failed, each still in its output."""
        failed: list[Sink] = []
        for output in list(self.outputs):
            if any(sink.pending for sink in output.sinks):
                waiting = [sink for sink in output.sinks if sink.pending and sink.fd in ready]
                failed += [sink for sink in waiting if not sink.advance()]
            elif output.source in ready and not output.read(self._writer):
                self.end(output)
        return failed

    def drain(self) -> None:
        """Take what the container has written by its end, without waiting for anybody.

        It is in the log and pending in the sinks afterwards. No more than a pipe holds: a
        process elsewhere may have been given the other end, and write for ever.
        """
        for output in list(self.outputs):
            rest = _capacity(output.source)
            while rest > 0 and wait({output.source: select.POLLIN}, 0):
                data = output.take(self._writer)
                if not data:
                    break
                rest -= len(data)
            self.end(output)

    def end(self, output: Output) -> None:
        """Forget an output; the container learns of it when it writes to what is closed here."""
        if output in self.outputs:
            self.outputs.remove(output)
            os.close(output.source)
            if output.source == self._master:
                self.input = self._master = -1
            if self._writer is not None:
                self._writer.finish(output.name)

    def end_input(self) -> None:
        """Let the container see the end of its input: of a terminal, a hang-up."""
        if self._master >= 0:
            for output in list(self.outputs):
                self.end(output)
        elif self.input >= 0:
            os.close(self.input)
            self.input = -1

    def close(self) -> None:
        """Close everything."""
        for output in list(self.outputs):
            self.end(output)
        self.end_input()


def _capacity(source: int) -> int:
    """Return how much can have been written and not been read."""
    try:
        return fcntl.fcntl(source, fcntl.F_GETPIPE_SZ) + _CHUNK
    except OSError:
        return _LARGEST_TERMINAL
