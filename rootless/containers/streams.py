"""The standard streams of a container, carried between its descriptors and ours.

Owns the copying and the state of our terminal; knows nothing of processes.
Nothing of ours is handed in directly: a container that held our terminal could
type into it. Called by the supervisor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import termios
from collections.abc import Iterator
from typing import Final

_CHUNK: Final = 65536


class Input:
    """Copies ``source`` to ``sink`` without ever waiting for the sink; closes it at the end."""

    def __init__(self, source: int, sink: int, close: bool) -> None:
        self._source = source
        self._sink = sink
        self._close = close
        self._pending = b""
        os.set_blocking(sink, False)

    def interest(self) -> tuple[int, int]:
        """Return (descriptor, poll events) of what it waits for now."""
        return (self._sink, select.POLLOUT) if self._pending else (self._source, select.POLLIN)

    def advance(self) -> bool:
        """Copy what is ready; False when there is no more to copy, ever."""
        try:
            if self._pending:
                self._pending = self._pending[os.write(self._sink, self._pending) :]
                return True
            self._pending = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            # The container closed its end, or our terminal went away.
            self._pending = b""
        else:
            if self._pending:
                return True
        self.stop()
        return False

    def stop(self) -> None:
        """Let the container see the end of its input."""
        if self._close:
            os.close(self._sink)
            self._close = False


class Output:
    """Copies ``source`` to ``sink``, waiting for the sink as any program does."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def advance(self) -> bool:
        """Copy what is ready; False at the end, or when nobody reads the sink any more."""
        try:
            data = os.read(self._source, _CHUNK)
            _write_all(self._sink, data)
        except BlockingIOError:
            return True
        except OSError:
            # EIO: the last process that had the terminal is gone. EPIPE: our reader is gone,
            # which the container learns when it writes to the pipe that is closed here.
            return False
        return bool(data)


def _write_all(sink: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(sink, data) :]
        except BlockingIOError:
            # Whoever shares the descriptor with us has set it so.
            wait({sink: select.POLLOUT})


class Streams:
    """All that flows between a container and us.

    Without a terminal the container gets pipes (and the null device for an input
    that nobody asked for); with one it makes a terminal of its own and gives us
    the master.
    """

    def __init__(self, *, terminal: bool, interactive: bool) -> None:
        self.outputs: dict[int, Output] = {}
        self.container_ends: list[int] = []
        self._input: Input | None = None
        self._interactive = interactive
        self._master = -1
        if not terminal:
            self._make_pipes()

    def _make_pipes(self) -> None:
        if self._interactive:
            theirs, ours = os.pipe()
            self._input = Input(0, ours, close=True)
        else:
            theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.container_ends.append(theirs)
        for sink in (1, 2):
            source, theirs = os.pipe()
            self.outputs[source] = Output(source, sink)
            self.container_ends.append(theirs)

    def connect(self, masters: list[int]) -> None:
        """Take the master of the container's terminal, if it made one."""
        for master in masters:
            self._master = master
            os.set_blocking(master, False)
            self.outputs[master] = Output(master, 1)
            if self._interactive:
                self._input = Input(0, master, close=False)
            self.copy_window_size()

    def copy_window_size(self) -> None:
        """Give the container's terminal the size of ours, where there are two."""
        if self._master >= 0:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8)
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    @contextlib.contextmanager
    def raw_terminal(self) -> Iterator[None]:
        """Pass every key of our terminal through, in this block, if a container takes them."""
        if self._master < 0 or self._input is None or not os.isatty(0):
            yield
            return
        import tty

        saved = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def interests(self, running: bool) -> dict[int, int]:
        """Return what to poll for: descriptor -> events; input only for a running container."""
        interests = dict.fromkeys(self.outputs, select.POLLIN)
        if self._input is not None and running:
            fd, events = self._input.interest()
            interests[fd] = interests.get(fd, 0) | events
        return interests

    def advance(self, ready: set[int]) -> None:
        """Copy what is ready."""
        for fd in self.outputs.keys() & ready:
            if not self.outputs[fd].advance():
                self._end(fd)
        source = self._input
        if source is not None and source.interest()[0] in ready and not source.advance():
            self._input = None
            if self._master >= 0:
                # Our terminal is gone: the container's is hung up in turn.
                self._end(self._master)

    def _end(self, source: int) -> None:
        os.close(source)
        del self.outputs[source]
        if source == self._master:
            self._input = None
            self._master = -1


def wait(interests: dict[int, int], seconds: float | None = None) -> set[int]:
    """Return those of ``interests`` (descriptor -> poll events) that are ready, none in time."""
    poll = select.poll()
    for fd, events in interests.items():
        poll.register(fd, events)
    return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
