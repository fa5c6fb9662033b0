"""Those who look on while a container runs: `rl run`, `attach`, `wait`, `stop`, each by a channel.

The supervisor's end. Owns containers/ID/control, the socket they come by, and
the descriptors they hand over, to which the container's output then goes
without passing through them. The other end is in ``attach``.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rootless.channel import Channel
from rootless.containers.streams import Pump, Sink, Streams
from rootless.errors import RlError
from rootless.kernel import process
from rootless.kernel.polling import wait

if TYPE_CHECKING:
    from rootless.containers.connected import Connected
    from rootless.containers.overlay import Server
    from rootless.networks.helper import Helper

_NAME: Final = "control"
_BACKLOG: Final = 64


@contextlib.contextmanager
def _address(container: Path) -> Iterator[str]:
    """Give the socket's path in a form short enough for any directory, unix(7)."""
    directory = os.open(container, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)


def connect(container: Path) -> Channel | None:
    """Return a channel to the supervisor of the container with this directory, if it has one."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _address(container) as address:
            end.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        end.close()
        return None
    return Channel(end)


class Onlooker:
    """One channel and the descriptors that came by it.

    The ``owner`` started the container: what it does to its streams happens to
    the container's. A terminal is not that: the container keeps its own, for
    whoever attaches next.
    """

    def __init__(self, channel: Channel, *, owner: bool) -> None:
        self.channel = channel
        self.owner = owner
        self.sinks: dict[str, Sink] = {}
        self.input: Pump | None = None
        self.stdin = -1
        self.waits = owner
        self.follows = False

    def take(self, names: Sequence[str], fds: Sequence[int]) -> None:
        """Take the descriptors that were handed over, one for each name of a stream."""
        for name, fd in zip(names, fds, strict=True):
            if name == "stdin":
                self.stdin = fd
            else:
                self.sinks[name] = Sink(fd)

    def part(self, exit_code: int, error: str) -> None:
        """Tell how the container ended, once it has read all; we do not wait for that."""
        for sink in self.sinks.values():
            sink.flush()
        if not self._pending():
            self._tell(exit_code, error)
            return
        kept = [self.channel.fileno(), *(sink.fd for sink in self.sinks.values())]
        # Nobody's child: we may go on for long, or be gone.
        process.fork(
            lambda: int(process.fork(lambda: self._deliver(exit_code, error), keep=kept).pid < 0),
            keep=kept,
        ).wait()

    def _pending(self) -> list[Sink]:
        return [sink for sink in self.sinks.values() if sink.pending]

    def _deliver(self, exit_code: int, error: str) -> int:
        """Wait until all is read, or the onlooker leaves."""
        process.restore_signals()
        while pending := self._pending():
            ready = wait(
                {self.channel.fileno(): select.POLLIN}
                | {sink.fd: select.POLLOUT for sink in pending}
            )
            if self.channel.fileno() in ready:
                message, _ = self.channel.receive()
                if message is None or "detach" in message:
                    return 0
            for sink in pending:
                if sink.fd in ready and not sink.advance():
                    sink.pending = b""
        self._tell(exit_code, error)
        return 0

    def _tell(self, exit_code: int, error: str) -> None:
        broken = [sink.error for sink in self.sinks.values() if sink.error]
        message: dict[str, Any] = {"exit_code": exit_code}
        if error:
            message["error"] = error
        elif broken:
            message = {
                "exit_code": RlError.exit_code,
                "error": f"cannot write the container's output: {broken[0].strerror}",
            }
        self.channel.send(message)

    def forget_input(self) -> None:
        """Stop reading its input."""
        self.input = None
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def release_input(self) -> Pump | None:
        """Give up its input, if any goes to the container; who takes it has to close its source."""
        pump, self.input = self.input, None
        if pump is not None:
            self.stdin = -1
        return pump

    def close(self) -> None:
        """Close all of it."""
        self.forget_input()
        for sink in self.sinks.values():
            sink.close()
        self.sinks.clear()
        self.channel.close()


class Console:
    """All onlookers of one container, over all its runs."""

    def __init__(self, container: Path, owner: Onlooker) -> None:
        self.stopped = False
        """Whether somebody asked for the container's end, so that it is not started again."""
        self.asked = False
        """Whether it was a person who asked, and not the machine that goes down."""
        self.child: process.Child | None = None
        self._owner = owner
        self._onlookers = [owner]
        # What those who left typed before, and is not read yet.
        self._last_words: list[Pump] = []
        self._streams: Streams | None = None
        self._server: Server | None = None
        self._network: Helper | Connected | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(container / _NAME)
        with _address(container) as address:
            self._listener.bind(address)
        self._listener.listen(_BACKLOG)

    def agree(self) -> None:
        """Ask the owner whether to start, now that all is ready; RlError if it is gone."""
        self._owner.channel.send({"ready": True})
        message, _ = self._owner.channel.receive()
        if message is None:
            raise RlError("it was interrupted before it started")

    def owner_channel(self) -> int:
        """Return what to poll for, to learn of the owner's end before the start."""
        return self._owner.channel.fileno()

    def started(self) -> None:
        """Tell the owner, if it is there still, that the container's command runs."""
        if self._owner in self._onlookers:
            self._owner.channel.send({"started": True})

    def connect(
        self, streams: Streams, child: process.Child, server: Server, network: Helper | Connected
    ) -> None:
        """Let a new run's output go to the onlookers, and their input and wishes to it."""
        self._streams, self.child, self._server = streams, child, server
        self._network = network
        for onlooker in self._onlookers:
            self._join(onlooker)

    def _join(self, onlooker: Onlooker) -> None:
        streams = self._streams
        if streams is None:
            return
        for output in streams.outputs:
            if sink := onlooker.sinks.get(output.name):
                output.sinks.append(sink)
        if onlooker.stdin >= 0 and streams.input >= 0:
            onlooker.input = Pump(onlooker.stdin, streams.input)
        if "stdout" in onlooker.sinks:
            streams.copy_window_size(onlooker.sinks["stdout"].fd)

    def interests(self) -> dict[int, int]:
        """Return what to poll for: descriptor -> events."""
        interests = {self._listener.fileno(): select.POLLIN}
        self._forget_dead_inputs()
        for onlooker in self._onlookers:
            interests[onlooker.channel.fileno()] = select.POLLIN
            if onlooker.input is not None:
                fd, events = onlooker.input.interest()
                interests[fd] = interests.get(fd, 0) | events
        for pump in self._last_words:
            fd, events = pump.interest()
            interests[fd] = interests.get(fd, 0) | events
        return interests

    def advance(self, ready: set[int]) -> None:
        """Do what onlookers ask for, and pass on their input."""
        if self._listener.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                while True:
                    end, _ = self._listener.accept()
                    self._onlookers.append(Onlooker(Channel(end), owner=False))
        self._forget_dead_inputs()
        for onlooker in list(self._onlookers):
            self._listen(onlooker)
            pump = onlooker.input
            if pump is not None and pump.interest()[0] in ready and not pump.advance():
                # An end of file may come after a message that explains it.
                self._listen(onlooker)
                self._input_ended(onlooker)
        for pump in list(self._last_words):
            if pump.interest()[0] in ready and not pump.advance():
                self._forget_last_words(pump)

    def _forget_last_words(self, pump: Pump) -> None:
        self._last_words.remove(pump)
        os.close(pump.source)

    def _forget_dead_inputs(self) -> None:
        """Forget pumps into what the streams have closed by now."""
        sink = self._streams.input if self._streams is not None else -1
        for onlooker in self._onlookers:
            if onlooker.input is not None and onlooker.input.sink != sink:
                onlooker.forget_input()
        for pump in list(self._last_words):
            if pump.sink != sink:
                self._forget_last_words(pump)

    def hear_all(self) -> None:
        """Do what onlookers have asked for by now, their very first words included."""
        self.advance(wait(self.interests(), 0))

    def _listen(self, onlooker: Onlooker) -> None:
        while onlooker in self._onlookers and wait({onlooker.channel.fileno(): select.POLLIN}, 0):
            message, fds = onlooker.channel.receive()
            if message is None or "detach" in message:
                self._leave(onlooker, hung_up=message is None)
            else:
                self._obey(onlooker, message, fds)

    def _obey(self, onlooker: Onlooker, message: dict[str, Any], fds: list[int]) -> None:
        if "attach" in message:
            onlooker.waits = True
            onlooker.take(message["attach"], fds)
            self._join(onlooker)
            onlooker.channel.send({"attached": True})
        if "follow" in message:
            onlooker.follows = True
            onlooker.channel.send({"following": True})
        if "stop" in message:
            self.stopped = self.asked = True
        number = message.get("stop") or message.get("signal")
        if number is not None and self.child is not None:
            self.child.send_signal(int(number))
        if "limit" in message:
            if self._server is not None:
                self._server.limit(message["limit"], fds[0])
            os.close(fds[0])
        if message.keys() & {"network_check", "network_join", "network_leave"}:
            from rootless.containers.connected import change

            onlooker.channel.send(change(self._network, message))
        if "resize" in message and self._streams is not None and "stdout" in onlooker.sinks:
            self._streams.copy_window_size(onlooker.sinks["stdout"].fd)

    def _leave(self, onlooker: Onlooker, *, hung_up: bool) -> None:
        """Let an onlooker go; what it typed still counts, but of an owner that was killed."""
        for sink in onlooker.sinks.values():
            self._drop(sink)
        if hung_up and onlooker.stdin >= 0:
            self._end_input_of(onlooker)
        elif pump := onlooker.release_input():
            self._last_words.append(pump)
        self._onlookers.remove(onlooker)
        onlooker.close()

    def _input_ended(self, onlooker: Onlooker) -> None:
        if onlooker in self._onlookers:
            onlooker.forget_input()
            self._end_input_of(onlooker)

    def _end_input_of(self, onlooker: Onlooker) -> None:
        if onlooker.owner and self._streams is not None and not self._streams.has_terminal:
            self._streams.end_input()

    def close(self) -> None:
        """Tell all who follow the log that nothing more comes."""
        for onlooker in self._onlookers:
            if onlooker.follows:
                onlooker.channel.offer({"ended": True})

    def rotated(self, fd: int) -> None:
        """Give all who follow the log its next file; one who has too many already is let go."""
        for onlooker in list(self._onlookers):
            if onlooker.follows and not onlooker.channel.offer({"rotated": True}, fd):
                self._leave(onlooker, hung_up=False)

    def failed(self, sinks: list[Sink]) -> None:
        """Forget sinks that take no more; an owner's pipe is the container's own, closed too."""
        streams = self._streams
        for sink in sinks:
            kept = streams is not None and streams.has_terminal and sink.hung_up
            for onlooker in self._onlookers:
                if sink in onlooker.sinks.values() and onlooker.owner and streams and not kept:
                    for output in list(streams.outputs):
                        if sink in output.sinks:
                            streams.end(output)
            sink.pending = b""
            self._drop(sink)

    def _drop(self, sink: Sink) -> None:
        if self._streams is not None:
            for output in self._streams.outputs:
                if sink in output.sinks:
                    output.sinks.remove(sink)

    def run_ended(self) -> None:
        """No input and no signal reach anything from here on."""
        self.child = self._server = self._network = None
        for onlooker in self._onlookers:
            onlooker.forget_input()
        for pump in list(self._last_words):
            self._forget_last_words(pump)

    def finish(self, exit_code: int, error: str = "") -> None:
        """Tell all who wait for it how the container ended, and let them go."""
        self._streams = None
        self.hear_all()
        for onlooker in list(self._onlookers):
            if onlooker.waits:
                onlooker.part(exit_code, error)
                self._onlookers.remove(onlooker)
                onlooker.close()
