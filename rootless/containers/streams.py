"""The standard streams of a container, carried between its descriptors and ours.

Owns the copying and the state of our terminal; knows nothing of processes.
Nothing of ours is handed in directly: a container that held our terminal could
type into it. Called by the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import termios
from collections.abc import Iterator
from typing import Final

_CHUNK: Final = 65536


class Pump:
    """Copies ``source`` to ``sink`` and never waits for either."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.error: OSError | None = None
        self._pending = b""
        # A pipe that poll calls writable takes PIPE_BUF without waiting, pipe(7).
        patient = stat.S_ISREG(os.fstat(sink).st_mode) or not os.get_blocking(sink)
        self._at_once = _CHUNK if patient else select.PIPE_BUF

    def interest(self) -> tuple[int, int]:
        """Return (descriptor, poll events) of what it waits for now."""
        return (self.sink, select.POLLOUT) if self._pending else (self.source, select.POLLIN)

    def advance(self) -> bool:
        """Copy what is ready; False when there is no more to copy, ever.

        That is at the end of the source, or when the sink takes no more; ``error``
        then tells why, unless it is just that nobody reads it any more.
        """
        if not self._pending:
            try:
                self._pending = os.read(self.source, _CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                # EIO: the last process that had the terminal is gone.
                return False
            if not self._pending or not wait({self.sink: select.POLLOUT}, 0):
                return bool(self._pending)
        try:
            written = os.write(self.sink, self._pending[: self._at_once])
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                self.error = error
            return False
        self._pending = self._pending[written:]
        return True


class Streams:
    """All that flows between a container and us.

    Without a terminal the container gets pipes (and the null device for an input
    that nobody asked for); with one it makes a terminal of its own and gives us
    the master.
    """

    def __init__(self, *, terminal: bool, interactive: bool) -> None:
        self.container_ends: list[int] = []
        self.error: OSError | None = None
        self._outputs: list[Pump] = []
        self._input: Pump | None = None
        self._interactive = interactive
        self._master = -1
        if not terminal:
            self._make_pipes()

    def _make_pipes(self) -> None:
        if self._interactive:
            theirs, ours = os.pipe()
            os.set_blocking(ours, False)
            self._input = Pump(0, ours)
        else:
            theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.container_ends.append(theirs)
        for sink in (1, 2):
            source, theirs = os.pipe()
            self._outputs.append(Pump(source, sink))
            self.container_ends.append(theirs)

    def connect(self, masters: list[int]) -> None:
        """Take the master of the container's terminal, if it made one."""
        for master in masters:
            self._master = master
            os.set_blocking(master, False)
            self._outputs.append(Pump(master, 1))
            if self._interactive:
                self._input = Pump(0, master)
            self.copy_window_size()

    @property
    def draining(self) -> bool:
        """Whether there may still be output."""
        return bool(self._outputs)

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
        pumps = [*self._outputs, self._input] if running and self._input else self._outputs
        interests: dict[int, int] = {}
        for pump in pumps:
            fd, events = pump.interest()
            interests[fd] = interests.get(fd, 0) | events
        return interests

    def advance(self, ready: set[int]) -> None:
        """Copy what is ready."""
        for pump in list(self._outputs):
            if pump.interest()[0] in ready and not pump.advance():
                self.error = self.error or pump.error
                self._end(pump)
        source = self._input
        if source is not None and source.interest()[0] in ready and not source.advance():
            self._input = None
            if self._master < 0:
                os.close(source.sink)
            else:
                # Our terminal is gone: the container's is hung up in turn.
                self._end(*(output for output in self._outputs if output.source == self._master))

    def _end(self, *outputs: Pump) -> None:
        """Forget outputs; the container learns of it when it writes to what is closed here."""
        for pump in outputs:
            self._outputs.remove(pump)
            os.close(pump.source)
            if pump.source == self._master:
                self._input = None
                self._master = -1


def wait(interests: dict[int, int], seconds: float | None = None) -> set[int]:
    """Return those of ``interests`` (descriptor -> poll events) that are ready, none in time."""
    poll = select.poll()
    for fd, events in interests.items():
        poll.register(fd, events)
    return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
