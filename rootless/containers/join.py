"""A process of ours on its way into a running container, to become a command there.

Joins the namespaces of PID 1 by its pidfd, with the identity, capabilities and
limits that config.json gives, and becomes the command as PID 1 does
(``command``). Two processes of ours follow each other in: one that joins and
waits outside of the PID namespace, and its child inside, which becomes the
command. Started by ``enter``.

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
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

from rootless.channel import Channel
from rootless.containers import command, handshake, interpreter, terminal
from rootless.containers.seccomp import program
from rootless.kernel import capabilities, process, syscalls
from rootless.kernel.polling import wait

_CHUNK: Final = 65536

Plan = dict[str, Any]


def join(
    wanted: Plan,
    stdio: Sequence[int],
    pidfd: int,
    channel: Channel,
    leaving: Channel | None,
    *,
    changeable: bool,
) -> int:
    """Enter the user namespace, with an interpreter that the container cannot change."""
    with handshake.failures_sent(channel):
        message, entrance = channel.receive()
        if message is None:
            os._exit(handshake.FAILED)
        command.set_oom_score(wanted["process"])
        os.setsid()
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER)
        syscalls.become_root(keep_groups=command.keeps_groups(wanted["process"]))
        if changeable:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
            memory = os.memfd_create("plan")
            os.write(memory, json.dumps(wanted).encode())
            others = (*descriptors(leaving), *stdio)
            kept = (memory, pidfd, channel.fileno(), *entrance, *others)
            for fd in kept:
                os.set_inheritable(fd, True)
            fds = (
                memory,
                pidfd,
                channel.fileno(),
                *(entrance or [-1]),
                *descriptors(leaving),
                *stdio,
            )
            interpreter.execute_read_only("rootless.containers.join", *map(str, fds))
        _proceed(wanted, stdio, pidfd, channel, leaving, *entrance)
    return handshake.FAILED


def descriptors(leaving: Channel | None) -> list[int]:
    """Return the descriptor of the channel by which to leave, if there is one."""
    return [] if leaving is None else [leaving.fileno()]


def main_anew(memory_fd: str, pidfd: str, channel_fd: str, entrance: str, *others: str) -> int:
    """Go on where ``join`` left off to execute the interpreter anew."""
    fds = [int(fd) for fd in others]
    # There are three standard streams or none, and before them the channel by which to leave.
    leaving = Channel(socket.socket(fileno=fds.pop(0))) if len(fds) % 3 else None
    channel = Channel(socket.socket(fileno=int(channel_fd)))
    with handshake.failures_sent(channel):
        with open(int(memory_fd), "rb") as memory:
            memory.seek(0)
            wanted = json.load(memory)
        _proceed(wanted, fds, int(pidfd), channel, leaving, int(entrance))
    return handshake.FAILED


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
    become = _reap if wanted.get("reaper") else _become_command
    child = process.fork(
        lambda: become(wanted, stdio, channel, entrance),
        keep=[channel.fileno(), entrance, *stdio],
    )
    process.close_all_but([child.pidfd, *descriptors(leaving)])
    sys.exit(0 if wanted["detached"] else _attend(child, leaving))


def _attend(child: process.Child, leaving: Channel | None) -> int:
    """Wait for the command; once whoever typed has left, keep its terminal for it."""
    master = -1
    while child.running:
        interests = {
            fd: select.POLLIN for fd in (child.pidfd, master, *descriptors(leaving)) if fd >= 0
        }
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
    with handshake.failures_sent(channel):
        os.setsid()
        os.umask(0o022)
        command.leave_keyring()
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if wanted["terminal"]:
            masters = terminal.open_terminal(root)
        else:
            masters = terminal.take(stdio)
        process.close_all_but([channel.fileno(), entrance, root, *masters])
        user = command.resolve_user(root, settings["user"])
        command.enter_directory(root, settings["cwd"])
        confined_by = program.Filter(*wanted["filter"]) if wanted["filter"] else None
        command.become(user, settings, confined_by)
        if not wanted["detached"]:
            process.die_with_parent()
        channel.send({"ready": True}, *masters)
        process.close_all_but([channel.fileno(), entrance])
        handshake.wait_for_go(channel)
        if entrance >= 0:
            # As late as can be: what we took until here is not the container's.
            os.write(entrance, b"0")
            os.close(entrance)
        command.execute(settings, confined_by)
    return handshake.FAILED


if __name__ == "__main__":
    sys.exit(main_anew(*sys.argv[1:]))
