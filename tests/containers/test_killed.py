"""SIGKILL at any moment, to any of our processes: nothing is lost, and nothing stays behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

ROUNDS = 50


def our_processes(rl: Rl) -> list[int]:
    """Return the processes that serve ``rl``, not those of containers."""
    found = []
    for line in leaks.processes(rl.directory):
        pid, _, command = line.partition(" ")
        if "run" in command or "pull" in command or "rootless" in command:
            found.append(int(pid))
    return found


def assert_sound(rl: Rl) -> None:
    """Check that nothing runs or is mounted any more, and that every blob is what it is named."""
    assert leaks.wait_for_none(rl.directory) == []
    for blob in (rl.root / "images/blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def kill_one_at_random(rl: Rl, process: subprocess.Popen[bytes], within: float) -> None:
    time.sleep(random.uniform(0, within))
    victims = our_processes(rl)
    if victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(victims), signal.SIGKILL)
    process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Print the seed of this run, so that a failure can be had again."""
    number = int(os.environ.get("RL_TEST_SEED", time.time_ns() % 10**9))
    print(f"RL_TEST_SEED={number}")  # noqa: T201
    random.seed(number)


def tree(rl: Rl) -> str:
    """Return all that a container of the image sees, with times and contents."""
    # hosts, hostname and resolv.conf are made for each container.
    script = """
        find / -xdev -type f ! -path '/etc/[hr]*' | sort > /dev/shm/files
        xargs ls -ln < /dev/shm/files; xargs cat < /dev/shm/files | md5sum
    """
    return rl("run", "--rm", "alpine", "sh", "-c", script).stdout


def test_runs_that_are_killed_leave_nothing(fresh_rl: Rl) -> None:
    before = tree(fresh_rl)
    for _ in range(ROUNDS):
        script = "echo x > /etc/motd; cat /etc/passwd /bin/sh > /copy; sleep 0.2"
        with fresh_rl.start("run", "--rm", "alpine", "sh", "-c", script) as process:
            kill_one_at_random(fresh_rl, process, 0.5)
        assert leaks.wait_for_none(fresh_rl.directory) == []
        states = fresh_rl("ps", "-a", "--format", "{{.State}}").stdout.split()
        assert "running" not in states
    assert_sound(fresh_rl)
    assert tree(fresh_rl) == before
    # The last command removed what the killed ones could not.
    assert list((fresh_rl.root / "containers").iterdir()) == []


def test_pulls_that_are_killed_leave_a_store_that_works(fresh_rl: Rl) -> None:
    before = tree(fresh_rl)
    for _ in range(ROUNDS):
        fresh_rl("rmi", "alpine", check=False)
        with fresh_rl.start("pull", "-q", "alpine", stdout=subprocess.DEVNULL) as process:
            kill_one_at_random(fresh_rl, process, 0.6)
        assert_sound(fresh_rl)
    assert tree(fresh_rl) == before
    assert list((fresh_rl.root / "containers").iterdir()) == []
    done = subprocess.run(
        ["skopeo", "inspect", f"oci:{fresh_rl.root}/images:docker.io/library/alpine:latest"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    fresh_rl("rmi", "alpine")
    for directory in ("images/blobs/sha256", "layers", "tmp"):
        assert list(Path(fresh_rl.root / directory).iterdir()) == []


def test_detached_containers_that_are_hit_have_a_truthful_state(fresh_rl: Rl) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i; done"
    for _ in range(24):
        policy = random.choice(["no", "always"])
        ids = [
            fresh_rl(
                "run", "-q", "-d", "--restart", policy, "alpine", "sh", "-c", script
            ).stdout.strip()
            for _ in range(2)
        ]  # fmt: skip
        exec_of_one = fresh_rl.start("exec", ids[0], "sleep", "1000", stderr=subprocess.DEVNULL)
        known = [int(line.split()[0]) for line in leaks.processes(fresh_rl.directory)]
        time.sleep(random.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(known), signal.SIGKILL)
        fresh_rl("stop", "-t", "0", *ids)
        assert exec_of_one.wait(PATIENCE) != 0
        assert leaks.wait_for_none(fresh_rl.directory) == []
        for container_id in ids:
            form = "{{.State.Status}} {{.State.Pid}}"
            assert fresh_rl("inspect", "-f", form, container_id).stdout == "exited 0\n"
            lines = fresh_rl("logs", container_id).stdout.split("\n")[:-1]
            # Every line is whole: each run counts from one.
            for before, line in zip(["0", *lines], lines, strict=False):
                assert int(line) in (int(before) + 1, 1)
        fresh_rl("rm", *ids)
    assert list((fresh_rl.root / "containers").iterdir()) == []
