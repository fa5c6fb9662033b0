"""One more process in a running container: `rl exec`, and health checks.

The outside: plans what is to be done as a value, starts the process that joins
(``join``), carries its streams and knows its exit code. Also finds PID 1 for
all who enter.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from rootless.channel import Channel
from rootless.containers import interpreter, join
from rootless.containers.idmaps import maps_of
from rootless.containers.seccomp import program
from rootless.containers.store import Container, unless_removed
from rootless.containers.streams import Sink, Streams
from rootless.errors import RlError
from rootless.kernel import process, syscalls
from rootless.kernel.polling import wait

if TYPE_CHECKING:
    from rootless.containers.attach import Typing

_NAMESPACES: Final = {
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "network": syscalls.CLONE_NEWNET,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}

_CHUNK: Final = 65536


def plan(
    container: Container,
    args: Sequence[str],
    *,
    env: Sequence[str] = (),
    cwd: str | None = None,
    user: str | None = None,
    terminal: bool = False,
    privileged: bool = False,
    detached: bool = False,
) -> join.Plan:
    """Return what is to be done, as a value: the ``process`` of config.json, changed as asked."""
    from rootless.kernel.capabilities import NAMES

    spec = container.config
    settings = dict(spec["process"])
    variables = dict(item.split("=", 1) for item in settings["env"])
    if terminal:
        variables.setdefault("TERM", "xterm")
    variables |= dict(item.split("=", 1) for item in env)
    if cwd is not None and not cwd.startswith("/"):
        raise RlError(f"the working directory {cwd!r} is invalid: it must be an absolute path")
    settings |= {
        "args": list(args),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": cwd or settings["cwd"],
    }
    if user:
        settings["user"] = {**settings["user"], "username": user}
    if privileged:
        every = list(NAMES)
        settings["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
    kinds = [space["type"] for space in spec["linux"]["namespaces"]]
    flags = sum(_NAMESPACES.get(kind, 0) for kind in (*kinds, *container.extra.joined))
    return {
        "process": settings,
        "flags": flags,
        "terminal": terminal,
        "detached": detached,
        "filter": _load_filter(container) if "seccomp" in spec["linux"] else None,
    }


def _load_filter(container: Container) -> program.Filter:
    with unless_removed(container):
        return program.load(program.open_program(container.path), container.config["linux"])


def run(
    container: Container, wanted: join.Plan, *, interactive: bool, keys: bytes = b""
) -> int | None:
    """Run a process in a container and return its exit code, or 0 if it is detached.

    None if it was left by the ``keys``, and runs on.
    """
    from rootless.containers.attach import Typing

    detached = wanted["detached"]
    streams = Streams(terminal=detached or wanted["terminal"], interactive=interactive, writer=None)
    ends = streams.container_ends
    if detached:
        ends = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
    leaving, theirs = Channel.pair()
    joining, channel = begin(container, wanted, ends, theirs)
    theirs.close()
    for fd in ends:
        os.close(fd)
    left = detached
    try:
        with while_running(container):
            masters = _expect_ready(channel, joining)
        streams.connect(masters)
        if detached:
            channel.send({"start": True})
            _check_executed(channel)
            return 0
        for output in streams.outputs:
            output.sinks.append(Sink(os.dup(1 if output.name == "stdout" else 2)))
        typing = (
            Typing(streams.input, keys if streams.has_terminal else b"") if interactive else None
        )
        code = _carry(streams, channel, joining, typing)
        if code is None:
            left = _leave(leaving, streams.input)
        return code
    finally:
        if not left:
            joining.kill()
        if detached or not left:
            joining.wait()


def _leave(leaving: Channel, master: int) -> bool:
    """Give the terminal to the process that joined; tell whether it goes on without us."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    leaving.send({"leave": True}, master, null)
    message, _ = leaving.receive()
    return message is not None


def begin(
    container: Container, wanted: join.Plan, stdio: Sequence[int], leaving: Channel | None = None
) -> tuple[process.Child, Channel]:
    """Fork the process that joins a container, with these streams (none for a terminal).

    By the channel come "ready", after which it waits for a go-ahead, and the end of file when the
    command was executed, or else an "error". By ``leaving`` its terminal can be given to that
    process, which then outlives us.
    """
    if container.paused:
        raise RlError(f"container {container.name} is paused, unpause it before exec")
    pidfd = open_init(container)
    channel, theirs = Channel.pair()
    changeable = interpreter.is_changeable(maps_of(container.config))
    joining = process.fork(
        lambda: join.join(wanted, stdio, pidfd, theirs, leaving, changeable=changeable),
        keep=[pidfd, theirs.fileno(), *join.descriptors(leaving), *stdio],
    )
    theirs.close()
    os.close(pidfd)
    try:
        with while_running(container):
            _let_in(container, joining, channel)
    except BaseException:
        joining.kill()
        joining.wait()
        channel.close()
        raise
    return joining, channel


def _let_in(container: Container, joining: process.Child, channel: Channel) -> None:
    """Say "go", with what leads the command into the container's cgroup if it has one."""
    entrance: list[int] = []
    if container.state.cgroup:
        from rootless.containers import cgroup

        entrance = cgroup.entrance(container, joining.pid)
    channel.send({"go": True}, *entrance)
    for fd in entrance:
        os.close(fd)


def open_init(container: Container) -> int:
    """Return a pidfd of a running container's PID 1; RlError if there is none."""
    init_process = container.state.init
    if container.state.status == "running" and init_process is not None:
        try:
            pidfd = os.pidfd_open(init_process.pid)
        except ProcessLookupError:
            pass
        else:
            # Asked now that the number cannot come to mean another process.
            if init_process.alive():
                return pidfd
            os.close(pidfd)
    raise container.not_running()


@contextlib.contextmanager
def while_running(container: Container) -> Iterator[None]:
    """Let what fails in this block be that the container does not run any more, where it ended."""
    with unless_removed(container):
        try:
            yield
        except (RlError, OSError):
            init = container.state.init
            if init is None or not init.alive():
                raise RlError(f"container {container.name} is not running") from None
            raise


def _expect_ready(channel: Channel, joining: process.Child) -> list[int]:
    message, fds = channel.receive()
    if message is None:
        raise RlError(f"the container could not be entered (status {joining.wait()})")
    raise_error(message)
    return fds


def _check_executed(channel: Channel) -> None:
    """Wait until the command was executed; RlError if it could not be."""
    message, _ = channel.receive()
    if message is not None:
        raise_error(message)


def raise_error(message: dict[str, Any]) -> None:
    """Raise the error that a message from inside brings, if it does."""
    if "error" in message:
        raise RlError(str(message["error"]), int(message["exit_code"]))


def _carry(
    streams: Streams, channel: Channel, joining: process.Child, typing: Typing | None
) -> int | None:
    from rootless.containers.attach import raw_terminal

    streams.copy_window_size(1)
    signal.signal(signal.SIGWINCH, lambda *_: streams.copy_window_size(1))
    channel.send({"start": True})
    executing = True
    failure: OSError | None = None
    with raw_terminal(enabled=streams.has_terminal and typing is not None):
        while joining.running:
            interests = streams.interests() | {joining.pidfd: select.POLLIN}
            if executing:
                interests[channel.fileno()] = select.POLLIN
            if typing is not None and typing.sink != streams.input:
                typing = None
            if typing is not None:
                fd, events = typing.interest()
                interests[fd] = interests.get(fd, 0) | events
            ready = wait(interests)
            if executing and channel.fileno() in ready:
                # The end of file says that the command was executed.
                executing = False
                _check_executed(channel)
            if typing is not None and typing.interest()[0] in ready and not typing.advance():
                typing = None
                streams.end_input()
            if typing is not None and typing.left:
                return None
            failure = _advance(streams, ready) or failure
            if joining.pidfd in ready:
                joining.wait()
    # What it left behind may hold its output for ever.
    failure = _drain(streams) or failure
    if failure is not None:
        raise RlError(f"cannot write the command's output: {failure.strerror}")
    return joining.wait()


def _advance(streams: Streams, ready: set[int]) -> OSError | None:
    """Carry what is ready; an output that takes no more is closed, and its error returned."""
    failure = None
    for sink in streams.advance(ready):
        failure = sink.error or failure
        for output in list(streams.outputs):
            if sink in output.sinks:
                streams.end(output)
    return failure


def _drain(streams: Streams) -> OSError | None:
    """Carry what has been written by now."""
    failure = None
    while streams.outputs:
        pending = any(sink.pending for output in streams.outputs for sink in output.sinks)
        ready = wait(streams.interests(), None if pending else 0)
        if not ready:
            break
        failure = _advance(streams, ready) or failure
    return failure
