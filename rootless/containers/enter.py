"""One more process in a running container: `rl exec`.

Joins the namespaces of PID 1 by its pidfd, with the identity, capabilities and
limits that config.json gives; what PID 1's set-up does to become the
container's user is init's and is done by it here. Two processes of ours follow
each other in: one that joins and waits outside of the PID namespace, and its
child inside, which becomes the command.

The container is there already and hostile. So nothing is imported and no path
but the container's is opened once its mounts are joined; we are not dumpable,
which keeps /proc/PID of ours closed to it (CVE-2019-5736); no descriptor of the
host is open when the working directory is entered, and it is entered through no
magic link (CVE-2024-21626).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rootless.containers import init, interpreter
from rootless.containers.channel import Channel
from rootless.containers.idmaps import maps_of
from rootless.containers.seccomp import program
from rootless.containers.store import Container
from rootless.containers.streams import Sink, Streams, wait
from rootless.errors import RlError
from rootless.kernel import capabilities, mounts, process, syscalls

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

Plan = dict[str, Any]


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
) -> Plan:
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
    flags = sum(_NAMESPACES.get(space["type"], 0) for space in spec["linux"]["namespaces"])
    return {
        "process": settings,
        "flags": flags,
        "terminal": terminal,
        "detached": detached,
        "filter": (
            program.load(program.open_program(container.path), spec["linux"])
            if "seccomp" in spec["linux"]
            else None
        ),
    }


# The outside.


def run(container: Container, wanted: Plan, *, interactive: bool, keys: bytes = b"") -> int | None:
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
    container: Container, wanted: Plan, stdio: Sequence[int], leaving: Channel | None = None
) -> tuple[process.Child, Channel]:
    """Fork the process that joins a container, with these streams (none for a terminal).

    By the channel come "ready", after which it waits for a go-ahead, and the end of file when the
    command was executed, or else an "error". By ``leaving`` its terminal can be given to that
    process, which then outlives us.
    """
    pidfd = open_init(container)
    channel, theirs = Channel.pair()
    changeable = interpreter.is_changeable(maps_of(container.config))
    joining = process.fork(
        lambda: _join(wanted, stdio, pidfd, theirs, leaving, changeable=changeable),
        keep=[pidfd, theirs.fileno(), *_fds(leaving), *stdio],
    )
    theirs.close()
    os.close(pidfd)
    try:
        _let_in(container, joining, channel)
    except BaseException:
        joining.kill()
        joining.wait()
        channel.close()
        raise
    return joining, channel


def _fds(leaving: Channel | None) -> list[int]:
    return [] if leaving is None else [leaving.fileno()]


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
    if container.paused:
        raise RlError(f"container {container.name} is paused, unpause it before exec")
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
    raise RlError(f"container {container.name} is not running")


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


# The inside.


def _join(
    wanted: Plan,
    stdio: Sequence[int],
    pidfd: int,
    channel: Channel,
    leaving: Channel | None,
    *,
    changeable: bool,
) -> int:
    """Enter the user namespace, with an interpreter that the container cannot change."""
    with init.failures_sent(channel):
        message, entrance = channel.receive()
        if message is None:
            os._exit(init.FAILED)
        init.set_oom_score(wanted["process"])
        os.setsid()
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
        syscalls.become_root(keep_groups=init.keeps_groups(wanted["process"]))
        if changeable:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
            memory = os.memfd_create("plan")
            os.write(memory, json.dumps(wanted).encode())
            kept = (memory, pidfd, channel.fileno(), *entrance, *_fds(leaving), *stdio)
            for fd in kept:
                os.set_inheritable(fd, True)
            fds = (memory, pidfd, channel.fileno(), *(entrance or [-1]), *_fds(leaving), *stdio)
            interpreter.execute_read_only("rootless.containers.enter", *map(str, fds))
        _proceed(wanted, stdio, pidfd, channel, leaving, *entrance)
    return init.FAILED


def main_anew(memory_fd: str, pidfd: str, channel_fd: str, entrance: str, *others: str) -> int:
    """Go on where ``_join`` left off to execute the interpreter anew."""
    fds = [int(fd) for fd in others]
    # There are three standard streams or none, and before them the channel by which to leave.
    leaving = Channel(socket.socket(fileno=fds.pop(0))) if len(fds) % 3 else None
    channel = Channel(socket.socket(fileno=int(channel_fd)))
    with init.failures_sent(channel):
        with open(int(memory_fd), "rb") as memory:
            memory.seek(0)
            wanted = json.load(memory)
        _proceed(wanted, fds, int(pidfd), channel, leaving, int(entrance))
    return init.FAILED


def _proceed(
    wanted: Plan,
    stdio: Sequence[int],
    pidfd: int,
    channel: Channel,
    leaving: Channel | None,
    entrance: int = -1,
) -> None:
    """Join the other namespaces, and exit as the command does."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if not wanted["detached"]:
        process.die_with_parent()
    _import_no_more()
    syscalls.setns(pidfd, wanted["flags"])
    command = _reap if wanted.get("reaper") else _become_command
    child = process.fork(
        lambda: command(wanted, stdio, channel, entrance),
        keep=[channel.fileno(), entrance, *stdio],
    )
    process.close_all_but([child.pidfd, *_fds(leaving)])
    sys.exit(0 if wanted["detached"] else _attend(child, leaving))


def _attend(child: process.Child, leaving: Channel | None) -> int:
    """Wait for the command; once whoever typed has left, keep its terminal for it."""
    master = -1
    while child.running:
        interests = {fd: select.POLLIN for fd in (child.pidfd, master, *_fds(leaving)) if fd >= 0}
        ready = wait(interests)
        if leaving is not None and leaving.fileno() in ready:
            _, fds = leaving.receive()
            if fds:
                master, null = fds
                for fd in range(3):
                    os.dup2(null, fd)
                syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
                leaving.send({"left": True})
            leaving.close()
            leaving = None
        if master in ready:
            try:
                os.read(master, _CHUNK)
            except OSError:
                # Its last slave is closed.
                master = -1
        if child.pidfd in ready:
            child.wait()
    return child.wait()


def _import_no_more() -> None:
    # What is not loaded by now would be the container's.
    sys.meta_path.clear()
    sys.path.clear()


def _reap(wanted: Plan, stdio: Sequence[int], channel: Channel, entrance: int) -> int:
    """Run the command below us, and adopt what it leaves behind, so that it can be found."""
    process.die_with_parent()
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    child = process.fork(
        lambda: _become_command(wanted, stdio, channel, entrance),
        keep=[channel.fileno(), entrance, *stdio],
    )
    # Nothing in the container could gain by taking us over.
    capabilities.limit_to(())
    process.close_all_but([child.pidfd])
    while child.running:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        if ended.si_pid == child.pid:
            child.wait()
        else:
            os.waitpid(ended.si_pid, 0)
    # PID 1 may be one that does not wait for children that it never had.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return child.wait()


def _become_command(wanted: Plan, stdio: Sequence[int], channel: Channel, entrance: int) -> int:
    settings = wanted["process"]
    with init.failures_sent(channel):
        os.setsid()
        os.umask(0o022)
        init.leave_keyring()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if wanted["terminal"]:
            masters = init.open_terminal(root)
        else:
            masters = init.take(stdio)
        process.close_all_but([channel.fileno(), entrance, root, *masters])
        user = init.resolve_user(root, settings["user"])
        _enter_directory(root, settings["cwd"])
        confined_by = program.Filter(*wanted["filter"]) if wanted["filter"] else None
        init.become(user, settings, confined_by)
        if not wanted["detached"]:
            process.die_with_parent()
        channel.send({"ready": True}, *masters)
        process.close_all_but([channel.fileno(), entrance])
        init.wait_for_go(channel)
        if entrance >= 0:
            # As late as can be: what we took until here is not the container's.
            os.write(entrance, b"0")
            os.close(entrance)
        init.execute(settings, confined_by)
    return init.FAILED


def _enter_directory(root: int, path: str) -> None:
    try:
        directory = mounts.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(directory)
        os.close(directory)
        # It fails for a directory that is not below the root.
        os.getcwd()
    except OSError as error:
        raise RlError(
            f"cannot use {path} as the working directory: {error.strerror}", init.NOT_EXECUTABLE
        ) from None


if __name__ == "__main__":
    sys.exit(main_anew(*sys.argv[1:]))
