"""The file systems that the overlay benchmark compares, and what their servers use.

Owns mounts and servers: each mount has directories and a server of its own, and nothing of it is
left when its context ends. Used by overlay.py, as root of a user namespace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fuse_overlay.support import mount_options

OURS = "fuse-overlay"
KERNEL = "kernel"

_TICK = os.sysconf("SC_CLK_TCK")


class MountFailed(Exception):
    """A file system could not be mounted; one line that says why."""


@dataclass(frozen=True)
class Contestant:
    """A file system."""

    name: str
    server: tuple[str, ...] = ()
    """The command, without its arguments; the kernel has none."""


def ours() -> Contestant:
    """Return the overlay of this project."""
    return Contestant(OURS, (sys.executable, "-m", "fuse_overlay"))


def peers(named: Sequence[str]) -> list[Contestant]:
    """Return the kernel's overlayfs, the distribution's fuse-overlayfs, and those of NAME=PATH."""
    program = "/usr/bin/fuse-overlayfs"
    said = subprocess.run([program, "--version"], capture_output=True, check=True, text=True)
    version = said.stdout.partition("version ")[2].split()[0]
    found = [Contestant(KERNEL), Contestant(f"fuse-overlayfs {version}", (program,))]
    for one in named:
        name, _, path = one.partition("=")
        found.append(Contestant(name, (path,)))
    return found


@dataclass
class Mount:
    """A mounted overlay."""

    root: Path
    processes: list[int]
    """The server's, empty for the kernel."""
    requests: dict[str, int] = field(default_factory=dict)
    """How many of each opcode, known after the unmount, of our server alone."""

    def cpu(self) -> float | None:
        """Return the seconds of processor time that the server has used."""
        if not self.processes:
            return None
        # utime, stime, and those of children that are gone: the 12th to 15th after the name
        fields = (_stat(pid)[11:15] for pid in self.processes)
        return sum(int(ticks) for four in fields for ticks in four) / _TICK

    def memory(self) -> float | None:
        """Return the MiB that the server takes now, shared ones divided among those who share."""
        if not self.processes:
            return None
        kib = 0
        for pid in self.processes:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                kib += int(line.split()[1]) if line.startswith("Pss:") else 0
        return kib / 1024


class PeakMemory:
    """Watches a server's memory as long as its context lasts."""

    def __init__(self, mount: Mount, interval: float = 0.2) -> None:
        self.peak: float | None = None
        self._mount = mount
        self._interval = interval
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._end.wait(self._interval)
            try:
                now = self._mount.memory()
            except OSError:  # the server died, which the step will say
                return
            if now is not None:
                self.peak = max(self.peak or 0, now)


@contextmanager
def mounted(contestant: Contestant, lowers: Sequence[Path], area: Path) -> Iterator[Mount]:
    """Mount with new upper and work directories below `area`, and remove all of it afterwards."""
    upper, work, root = (area / name for name in ("upper", "work", "mount"))
    for path in (area, upper, work, root):
        path.mkdir()
    log, stats = area / "log", area / "stats"
    options = mount_options(lowers, upper, work)
    server = None
    try:
        if not contestant.server:
            with log.open("wb") as errors:
                mount = ["mount", "-t", "overlay", "-o", f"{options},userxattr", "overlay"]
                subprocess.run([*mount, str(root)], stderr=errors, check=False)
        else:
            if contestant.name == OURS:
                options += f",stats={stats}"
            server = _start([*contestant.server, "-f", "-o", options, str(root)], log)
        _wait_for_mount(root, server, log)
        overlay = Mount(root, _session(server.pid) if server else [])
        try:
            yield overlay
        finally:
            _unmount(root)
        if server:
            server.wait(20)
        if stats.exists():
            overlay.requests = json.loads(stats.read_text())
    finally:
        if server:
            server.kill()
            server.wait()
        subprocess.run(["rm", "-rf", area], check=True)


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server, in a session of its own, that dies when we do."""
    with log.open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _wait_for_mount(root: Path, server: subprocess.Popen[bytes] | None, log: Path) -> None:
    deadline = time.monotonic() + 30
    while not os.path.ismount(root):
        if server is None or server.poll() is not None or time.monotonic() > deadline:
            raise MountFailed(f"cannot be mounted: {last_line(log.read_text(errors='replace'))}")
        time.sleep(0.01)


def _unmount(root: Path) -> None:
    """Unmount as soon as the last process has left; at once when that takes too long."""
    for _ in range(100):
        if subprocess.run(["umount", root], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", root], check=True)


def _session(leader: int) -> list[int]:
    """Return a server's processes, which are those of its session."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if int(_stat(int(pid))[3]) == leader:
                found.append(int(pid))
        except OSError:  # it has ended
            continue
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def last_line(text: str) -> str:
    """Return what programs say at last when they give up."""
    return (text.strip().splitlines() or ["without a word"])[-1]
