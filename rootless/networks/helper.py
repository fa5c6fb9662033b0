"""The program that connects a container's network namespace to the world.

Owns its process: it is started on the namespaces of PID 1, beside the rest of
the set-up; it says when the network is there; it ends with us, however we end.
It runs outside of the container, where nothing inside sees or reaches it.
Called by the supervisor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rootless.errors import RlError
from rootless.kernel import process, syscalls
from rootless.networks import mode, programs, routes
from rootless.networks.ports import ANY, Port

LOG: Final = "network.log"
_API_SOCKET: Final = "slirp4netns.sock"


class Helper:
    """pasta or slirp4netns for one run of a container.

    It is ready at once if no program is needed, as with ``host`` and ``none``.
    """

    def __init__(self, wanted: programs.Wanted, directory: Path) -> None:
        self._wanted = wanted
        self._directory = directory
        self._program = mode.need(wanted.mode.name) if wanted.mode.helper else ""
        self._child: process.Child | None = None
        # What becomes readable when the network is there, and what is still expected of it.
        self._announcements = -1
        self._expected: set[int] = set()
        self._lifeline = -1
        self.ready = not self._program

    def start(self, announced: int, userns: int, netns: int) -> None:
        """Connect a network namespace, which belongs to a user namespace.

        ``announced`` hears of its routes. All of these descriptors are ours from now on.
        """
        if not self._program:
            os.close(announced)
        elif self._wanted.mode.name == "pasta":
            self._announcements = announced
            self._expected = set(self._wanted.versions)
            # Newer ones close all but the standard streams.
            arguments = programs.pasta(self._wanted, "/proc/self/fd/1", "/proc/self/fd/0")
            self._child = self._execute(arguments, stdin=netns, stdout=userns)
        else:
            os.close(announced)
            self._announcements, ready = os.pipe()
            exit_fd, self._lifeline = os.pipe()
            arguments = programs.slirp4netns(
                self._wanted, "/proc/self/fd/0", ready, exit_fd, _API_SOCKET
            )
            self._child = self._execute(arguments, ready, exit_fd, stdin=netns, userns=userns)
            os.close(ready)
            os.close(exit_fd)
        os.close(userns)
        os.close(netns)

    def _execute(
        self,
        arguments: Sequence[str],
        *kept: int,
        stdin: int,
        stdout: int | None = None,
        userns: int | None = None,
    ) -> process.Child:
        """Execute the program; with ``userns`` it is root of that user namespace."""
        parent = os.getpid()

        def main() -> int:
            os.setsid()
            # The API's socket is a name there, which no length of the path can break.
            os.chdir(self._directory)
            log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for fd, opened in enumerate((stdin, null if stdout is None else stdout, log)):
                os.dup2(opened, fd)
            if userns is not None:
                syscalls.setns(userns, syscalls.CLONE_NEWUSER)
                syscalls.become_root()
            for fd in kept:
                os.set_inheritable(fd, True)
            # The API's socket is ours to use, also if the container's root is somebody else.
            os.umask(0)
            # pasta insists on default actions.
            process.restore_signals()
            process.die_with_parent()
            if os.getppid() == parent:
                # Under a name that says in ps(1) whose it is.
                name = f"{self._directory}/{self._wanted.mode.name}"
                os.execv(self._program, [name, *arguments])
            return 1

        others = [fd for fd in (stdin, stdout, userns) if fd is not None]
        return process.fork(main, keep=[*kept, *others])

    def watched(self) -> dict[int, int]:
        """Return what to poll for: the program's end and, until it is ready, its readiness."""
        if self._child is None or not self._child.running:
            return {}
        interests = {self._child.pidfd: select.POLLIN}
        if not self.ready:
            interests[self._announcements] = select.POLLIN
        return interests

    def advance(self) -> None:
        """Take note of what has happened; RlError if the program has failed."""
        if self._child is None:
            return
        if not self.ready:
            self._listen()
        if not self._child.running or _ended(self._child):
            status = self._child.wait()
            raise RlError(
                f"the container's network failed: {self._wanted.mode.name}: {self._reason(status)}"
            )

    def _listen(self) -> None:
        if self._wanted.mode.name == "pasta":
            self._expected -= routes.heard(self._announcements)
            self.ready = not self._expected
        elif _readable(self._announcements) and os.read(self._announcements, 1):
            self.ready = True
            for port in self._wanted.ports:
                self._forward(port)
        if self.ready:
            os.close(self._announcements)
            self._announcements = -1

    def _forward(self, port: Port) -> None:
        """Ask slirp4netns to forward a port."""
        arguments = {
            "proto": port.protocol,
            "host_addr": port.ip or ANY,
            "host_port": port.host,
            "guest_port": port.container,
        }
        with socket.socket(socket.AF_UNIX) as api:
            directory = os.open(self._directory, os.O_PATH | os.O_CLOEXEC)
            try:
                api.connect(f"/proc/self/fd/{directory}/{_API_SOCKET}")
            finally:
                os.close(directory)
            api.sendall(json.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode())
            api.shutdown(socket.SHUT_WR)
            answer = json.loads(api.makefile("rb").read())
        if "error" in answer:
            why = answer["error"].get("desc", "it is refused")
            raise RlError(f"cannot publish port {port} on {port.where}: slirp4netns: {why}")

    def _reason(self, status: int) -> str:
        if status > 128:
            return f"it was killed by {signal.Signals(status - 128).name}"
        try:
            lines = (self._directory / LOG).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return next((line for line in reversed(lines) if line.strip()), f"status {status}")

    def end(self) -> None:
        """Have the program end, which takes it a while; ``close`` waits for it."""
        if self._child is not None:
            self._child.kill()

    def close(self) -> None:
        """End the program."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        for fd in (self._announcements, self._lifeline):
            if fd >= 0:
                os.close(fd)
        self._announcements = self._lifeline = -1


def _ended(child: process.Child) -> bool:
    return _readable(child.pidfd)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
