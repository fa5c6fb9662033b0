"""The command as a user of the guest types it, with that user's own store, and the cgroup tree."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IMAGE = "localhost/busybox"
TREE = Path("/sys/fs/cgroup")
# Reads as much memory as it is told.
HOG = "dd if=/dev/zero of=/dev/null count=1 bs="
SPIN = "while :; do :; done"


def rl(
    *arguments: str, check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run rl to its end; with ``check``, a status other than 0 fails the test."""
    done = subprocess.run(
        ["rl", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=env,
    )
    if check and done.returncode:
        raise AssertionError(f"rl {arguments} ended with {done.returncode}: {done.stderr}")
    return done


def sudo(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command as root of the machine, with this environment's PATH."""
    done = subprocess.run(
        ["sudo", "env", f"PATH={os.environ['PATH']}", *command],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return done


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Path]:
    """Run a container in the background; yield its cgroup."""
    rl("run", "-d", "--name", name, *arguments)
    try:
        yield cgroup(name)
    finally:
        rl("rm", "-f", name)


def inspect(name: str) -> dict[str, Any]:
    """Return what rl inspect says."""
    found: list[dict[str, Any]] = json.loads(rl("inspect", name).stdout)
    return found[0]


def cgroup(name: str) -> Path:
    """Return the cgroup of a container's processes."""
    path = Path(f"/proc/{inspect(name)['State']['Pid']}/cgroup").read_text().strip()
    return Path(f"{TREE}{path.removeprefix('0::')}")


def counter(file: Path, name: str) -> int:
    """Return a number of a file such as cpu.stat."""
    return next(
        int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[0] == name
    )


def left() -> list[str]:
    """Return the cgroups of containers that are still there."""
    return [
        directory
        for directory, _, _ in os.walk(TREE)
        if directory.endswith(("/container", "/servers", "/rl"))
    ]


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)
