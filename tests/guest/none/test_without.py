"""Where nothing is delegated, containers run, and limits are refused."""

from __future__ import annotations

import pytest

from tests.guest.machine import IMAGE, inspect, rl


def test_a_container_runs_and_sees_a_cgroup_tree_that_begins_with_itself() -> None:
    script = "cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs"
    done = rl("run", "--rm", IMAGE, "sh", "-c", script)
    assert done.stdout == "0::/\n/sys/fs/cgroup/cgroup.procs\n"


@pytest.mark.parametrize(
    ("option", "controller"),
    [("--memory=64m", "memory"), ("--cpus=0.5", "cpu"), ("--pids-limit=9", "pids")],
)
def test_a_limit_is_refused_with_what_the_administrator_can_do(
    option: str, controller: str
) -> None:
    done = rl("run", "--rm", "--network", "none", option, IMAGE, "true", check=False)
    assert done.returncode == 125
    assert f"Delegate={controller}" in done.stderr
    assert "loginctl enable-linger guest" in done.stderr
    assert done.stderr.count("\n") == 1
    assert rl("run", "--rm", option, "--cgroups=disabled", IMAGE, "true").returncode == 0


def test_a_container_with_a_limit_can_be_made_and_changed_but_not_started() -> None:
    done = rl("create", "--name", "later", "-m", "64m", IMAGE, "true")
    try:
        assert "warning: container later cannot be started yet: limits need" in done.stderr
        assert "Delegate=memory" in done.stderr
        done = rl("update", "--cpus", "0.5", "later")
        assert done.stdout == "later\n"
        assert "warning: container later cannot be started yet: limits need" in done.stderr
        assert inspect("later")["HostConfig"]["NanoCpus"] == 500000000
        done = rl("start", "later", check=False)
        assert done.returncode == 125
        assert "Delegate=cpu memory" in done.stderr
    finally:
        rl("rm", "-f", "later")
    done = rl("create", "--cgroups", "disabled", "-m", "64m", IMAGE, "true")
    assert "cannot be started" not in done.stderr
    rl("rm", done.stdout.strip())


def test_a_cgroup_parent_is_refused_without_naming_controllers() -> None:
    done = rl("run", "--rm", "--cgroup-parent=/x", IMAGE, "true", check=False)
    assert done.returncode == 125
    assert "--cgroup-parent needs a cgroup that is delegated to you" in done.stderr
    assert "controllers" not in done.stderr


def test_what_needs_a_cgroup_says_so() -> None:
    rl("run", "-d", "--name", "free", IMAGE, "sleep", "1000")
    try:
        done = rl("pause", "free", check=False)
        assert done.returncode == 125
        assert "it has no cgroup" in done.stderr
        assert "rl info" in done.stderr
        done = rl("update", "-m", "64m", "free", check=False)
        assert "it was started without cgroup" in done.stderr
        assert "loginctl enable-linger guest" in done.stderr
        assert (
            rl("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}").stdout == "free --\n"
        )
        assert rl("exec", "free", "echo", "works").stdout == "works\n"
    finally:
        rl("rm", "-f", "free")


def test_info_says_what_to_do() -> None:
    done = rl("info")
    assert "CgroupDriver: none" in done.stdout
    assert "WARNING: no limits, no pause and no stats: no cgroup is delegated to you" in done.stdout
