"""Where systemd --user hands a scope out for each container."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.guest.machine import IMAGE, cgroup, rl, running

LIMIT = ("run", "--rm", "-m", "64m", IMAGE, "cat", "/sys/fs/cgroup/memory.max")


def test_info_says_that_systemd_does_it() -> None:
    done = rl("info", "-f", "{{.CgroupDriver}} {{.CgroupControllers}} {{.MemoryLimit}}")
    assert done.stdout == "systemd [cpu io memory pids] true\n"


def test_each_container_is_a_scope_in_one_slice() -> None:
    limits = ["--cpu-shares", "2048", "--memory-reservation", "8m", "-m", "64m"]
    limits += ["--device-write-bps", "/dev/ubda:1gb"]
    with running("web", *limits, IMAGE, "sleep", "1000") as leaf:
        files = [
            *(leaf.parent / name for name in ("cpu.weight", "memory.low", "io.max")),
            leaf / "memory.max",
        ]
        before = [file.read_text() for file in files]
        assert leaf.parent.name.startswith("rl-")
        assert leaf.parent.name.endswith(".scope")
        assert leaf.parent.parent.name == "rl.slice"
        done = subprocess.run(
            ["systemctl", "--user", "is-active", leaf.parent.name], check=False, capture_output=True
        )
        assert done.stdout == b"active\n"
        # The scope stays, also when systemd is told to look at its units anew, and its limits do.
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
        assert cgroup("web") == leaf
        rl("run", "--rm", "-m", "64m", "--cpu-shares", "9", IMAGE, "true")
        assert [file.read_text() for file in files] == before


def test_su_and_cron_which_set_no_variables_have_limits_as_well() -> None:
    bare = {name: os.environ[name] for name in ("PATH", "HOME")}
    assert rl(*LIMIT, env=bare).stdout == f"{64 << 20}\n"


def test_a_parent_is_a_slice() -> None:
    with running("job", "--cgroup-parent", "rl-jobs.slice", IMAGE, "sleep", "1000") as leaf:
        assert "/rl.slice/rl-jobs.slice/" in str(leaf)
    done = rl("run", "--rm", "--cgroup-parent", "/jobs", IMAGE, "true", check=False)
    assert "systemd --user wants a slice" in done.stderr


@pytest.mark.parametrize("delegate", ["no", "yes"])
def test_in_a_scope_of_the_users_systemd_a_container_has_a_scope_of_its_own(delegate: str) -> None:
    scope = ["systemd-run", "--user", "--scope", "--quiet", "-p", f"Delegate={delegate}"]
    done = subprocess.run([*scope, "rl", *LIMIT], check=False, capture_output=True, text=True)
    assert done.stdout == f"{64 << 20}\n", done.stderr


def test_a_warning_says_that_a_container_ends_with_the_last_login() -> None:
    rl("run", "-d", "--name", "long", IMAGE, "sleep", "1000")
    done = rl("restart", "-t", "0", "long")
    rl("rm", "-f", "long")
    assert "loginctl enable-linger" in done.stderr
