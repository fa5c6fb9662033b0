"""The life of one container, from clone to exit code.

Starts the overlay server and PID 1, gives each what the other must have, then
carries streams and signals until the end and records it. Whichever of the
processes dies, the others follow: the supervisor kills PID 1 when the overlay
server is gone, the overlay server does when the supervisor is gone, and with
PID 1 its whole PID namespace and every mount end.

Runs in the foreground, in the process that called it, which must be
single-threaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rootless.containers import init
from rootless.containers.channel import Channel
from rootless.containers.overlay import Server
from rootless.containers.spec import Spec
from rootless.containers.store import Container, ContainerStore, Process, now
from rootless.containers.streams import Streams, wait
from rootless.errors import RlError
from rootless.kernel import process, syscalls, userns

_NAMESPACES: Final = {
    "user": syscalls.CLONE_NEWUSER,
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "network": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}

# Passed on to the container, as docker run does; stopping and continuing us is
# the terminal's business, and faults and broken pipes are our own.
_FORWARDED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGPROF,
    signal.SIGVTALRM,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGXCPU,
)

# PID 1 may well ignore ^C; a person who insists means it.
_INTERRUPTS_TO_KILL: Final = 3


def run(
    containers: ContainerStore, container: Container, layers: Sequence[Path], server: Server
) -> int:
    """Run a created container in the foreground and return its exit code.

    ``layers`` are its unpacked layers from the bottom to the top; ``server`` is new, and ended
    by the caller. RlError (with the exit code to leave with) where the container could not be
    started or was cut off.
    """
    record = _Record(containers, container)
    try:
        return _run(container, layers, server, record)
    except RlError as error:
        record.failed(error)
        raise


class _Record:
    """The state on disk, as the container's life goes on."""

    def __init__(self, containers: ContainerStore, container: Container) -> None:
        self._containers = containers
        self._container = container

    def started(self, pid: int) -> None:
        self._update(status="running", started_at=now(), init=Process.of(pid))

    def ended(self, exit_code: int) -> None:
        self._update(status="exited", exit_code=exit_code, finished_at=now(), init=None)

    def failed(self, error: RlError) -> None:
        if self._container.state.status != "exited":
            self.ended(error.exit_code)
        self._update(error=str(error))

    def _update(self, **changes: object) -> None:
        self._container = self._containers.update(self._container, **changes)


def _run(container: Container, layers: Sequence[Path], server: Server, record: _Record) -> int:
    spec, request, path = container.config, container.extra.request, container.path
    streams = Streams(terminal=request["terminal"], interactive=request["interactive"])
    channel, theirs = Channel.pair()
    child = _clone(spec, streams, theirs)
    with _killed_at_the_end(child):
        start = _Start(child, channel, server)
        userns.write_maps(child.pid, userns.user_maps())
        channel.send({"go": True})
        (fuse,) = start.expect("fuse")
        server.serve(
            lower=[str(layer) for layer in reversed(layers)],
            upper=str(path / "upper"),
            work=str(path / "work"),
            log=str(path / "overlay.log"),
            pidfd=child.pidfd,
            fuse=fuse,
        )
        os.close(fuse)
        streams.connect(start.expect("ready"))
        record.started(child.pid)
        with streams.raw_terminal(), _signals_forwarded(child, streams):
            channel.send({"start": True})
            return _carry(streams, start, record)


def _clone(spec: Spec, streams: Streams, channel: Channel) -> process.Child:
    """Start PID 1 in its namespaces and close what only it needs."""
    flags = 0
    for namespace in spec["linux"]["namespaces"]:
        flags |= _NAMESPACES[namespace["type"]]
    theirs = streams.container_ends
    try:
        return process.fork(
            lambda: init.main(spec, theirs, channel), flags, keep=[channel.fileno(), *theirs]
        )
    except OSError as error:
        raise userns.creation_error(error) from None
    finally:
        channel.close()
        for fd in theirs:
            os.close(fd)


class _Start:
    """PID 1, the overlay server, and what they tell until the command has been executed."""

    def __init__(self, child: process.Child, channel: Channel, server: Server) -> None:
        self.child = child
        self.channel = channel
        self.server = server

    def expect(self, what: str) -> list[int]:
        """Return the descriptors of PID 1's message ``what``; RlError if it does not come."""
        wait({self.channel.fileno(): select.POLLIN} | self.server.watched())
        self.server.check()
        message, fds = self.channel.receive()
        if message is None or what not in message:
            raise self.failure(message)
        return fds

    def failure(self, message: dict[str, Any] | None) -> RlError:
        """Return PID 1's error; if the server failed first, raise that, which is the cause."""
        if message is not None and message.get("errno") == errno.ENOTCONN:
            self.server.check_after_loss()
        self.server.check()
        if message is None:
            return RlError(f"the container could not be set up (status {self.child.wait()})")
        return RlError(str(message["error"]), int(message["exit_code"]))


def _carry(streams: Streams, start: _Start, record: _Record) -> int:
    """Carry the streams until PID 1 has ended and all it wrote is out; return its exit code.

    The end is recorded when it comes, also if somebody is slow to read the rest.
    """
    child, channel = start.child, start.channel
    executing = True
    failure: RlError | None = None
    while child.running or streams.draining:
        interests = streams.interests(child.running)
        if child.running:
            interests |= {child.pidfd: select.POLLIN} | start.server.watched()
        if executing:
            interests[channel.fileno()] = select.POLLIN
        ready = wait(interests)
        try:
            if executing and channel.fileno() in ready:
                # The end of file says that the command was executed.
                executing = False
                message, _ = channel.receive()
                if message is not None:
                    failure = start.failure(message)
            start.server.check()
        except RlError as error:
            failure = error
            child.kill()
        streams.advance(ready)
        if child.running and child.pidfd in ready:
            child.wait()
            if failure is None:
                record.ended(child.wait())
    if failure is not None:
        raise failure
    if streams.error is not None:
        raise RlError(f"cannot write the container's output: {streams.error.strerror}")
    return child.wait()


@contextlib.contextmanager
def _killed_at_the_end(child: process.Child) -> Iterator[None]:
    try:
        yield
    finally:
        child.kill()
        child.wait()


@contextlib.contextmanager
def _signals_forwarded(child: process.Child, streams: Streams) -> Iterator[None]:
    """Pass signals on to PID 1, which gets them as Docker's does: only those it handles count."""

    interrupts = 0

    def forward(number: int, _: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        child.send_signal(signal.SIGKILL if interrupts >= _INTERRUPTS_TO_KILL else number)

    def resize(*_: object) -> None:
        streams.copy_window_size()

    saved = {number: signal.signal(number, forward) for number in _FORWARDED}
    saved[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
