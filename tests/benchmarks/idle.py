"""What many idle containers cost: rl beside Podman, detached containers of one image.

Run it with ``scripts/benchmark idle [--count N]``, on a machine that does nothing else. Each
contestant starts all of its containers, is asked for the memory of the processes that serve them
(PSS: what they share counts once) and for how often these are woken up in some seconds, and then
runs a command in every container. Fails if a container does not answer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.shared import table
from tests.benchmarks.startup import Podman, podman
from tests.support import images, leaks
from tests.support.registry import serve
from tests.support.runner import Rl

Run = Callable[..., subprocess.CompletedProcess[str] | None]

SETTLING_SECONDS = 2
WATCHED_SECONDS = 10
# The container's own command, which is not what is measured.
COMMAND = "sleep"


@dataclass(frozen=True)
class Cost:
    """What the containers of one contestant cost."""

    name: str
    start: float
    answer: float
    memory: Counter[str]
    wakeups: int
    count: int

    @property
    def each(self) -> float:
        """Return the memory for each container in MiB."""
        return sum(self.memory.values()) / self.count / 1024


def processes(directory: Path) -> list[tuple[int, str]]:
    """Return (PID, name) of each process that serves the containers below a directory."""
    found = []
    for line in leaks.processes(directory):
        pid = int(line.split()[0])
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        if name not in (COMMAND, "docker-registry"):
            found.append((pid, name))
    return found


def pss(pid: int) -> int:
    """Return the proportional set size of a process in KiB.

    Of one that has made itself unreadable, as pasta does, what it has for itself alone.
    """
    name, start = "smaps_rollup", "Pss:"
    if not os.access(f"/proc/{pid}/mem", os.R_OK):
        name, start = "status", "RssAnon:"
    lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(start))


def wakeups(pid: int) -> int:
    """Return how often a process has been switched to."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def measure(name: str, run: Run, directory: Path, image: str, count: int, *options: str) -> Cost:
    """Start containers, ask all of them, look at what serves them, and remove them."""
    starts, answers = [], []
    try:
        for number in range(count):
            began = time.perf_counter()
            run("run", "-d", "--name", f"idle{number}", *options, image, COMMAND, "1d")
            starts.append(time.perf_counter() - began)
        # What starting them left to do.
        time.sleep(SETTLING_SECONDS)
        serving = processes(directory)
        memory: Counter[str] = Counter()
        for pid, kind in serving:
            memory[kind] += pss(pid)
        before = sum(wakeups(pid) for pid, _ in serving)
        time.sleep(WATCHED_SECONDS)
        woken = sum(wakeups(pid) for pid, _ in serving) - before
        for number in range(count):
            began = time.perf_counter()
            run("exec", f"idle{number}", "true")
            answers.append(time.perf_counter() - began)
    finally:
        run("rm", "-f", *(f"idle{number}" for number in range(len(starts))))
    return Cost(
        name, statistics.median(starts), statistics.median(answers), memory, woken, count
    )  # fmt: skip


def row(cost: Cost) -> list[str]:
    """Return a contestant's line."""
    parts = ", ".join(
        f"{kind} {kib / cost.count / 1024:.1f}" for kind, kib in cost.memory.most_common()
    )
    return [
        cost.name, f"{cost.start * 1000:.0f}", f"{cost.start * cost.count:.1f}",
        f"{cost.answer * 1000:.0f}", f"{cost.each:.1f}", parts, str(cost.wakeups),
    ]  # fmt: skip


def peer(one: Podman) -> Run:
    """Return what runs a command of Podman, which stops a container before it is removed."""

    def run(*arguments: str) -> None:
        one(*arguments[:1], *(("-t", "0") if arguments[0] == "rm" else ()), *arguments[1:])

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--network", default="none", help="none, pasta, slirp4netns")
    chosen = parser.parse_args()
    count, options = chosen.count, ("--network", chosen.network)
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="rl-bench-"))
        stack.callback(leaks.remove_tree, directory)
        registry = stack.enter_context(serve(directory / "registry"))
        images.busybox(directory / "busybox")
        registry.push(f"oci:{directory}/busybox:latest", "library/alpine")
        rl = Rl(directory / "rl-idle", registry.host)
        rl.prepare()
        rl("pull", "-q", "alpine")
        fuse = "overlay.mount_program=/usr/bin/fuse-overlayfs"
        other = stack.enter_context(podman(registry, "--storage-opt", fuse))
        image = f"{registry.host}/library/alpine"
        other("pull", "-q", image)
        costs = [
            measure("rl", rl, rl.directory, "alpine", count, *options),
            measure("podman, fuse-overlayfs", peer(other), other.directory, image, count, *options),
        ]
        table(
            (
                f"{count} idle containers", "ms for one start", "s for all", "ms for one exec",
                "MiB each", "of these", f"wake-ups in {WATCHED_SECONDS} s",
            ),
            map(row, costs),
        )  # fmt: skip


if __name__ == "__main__":
    main()
