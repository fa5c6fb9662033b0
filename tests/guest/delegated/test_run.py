"""A container runs, whatever cgroups there are."""

from __future__ import annotations

from tests.guest.machine import IMAGE, rl


def test_a_container_sees_a_cgroup_tree_that_begins_with_itself() -> None:
    script = "cat /proc/self/cgroup; ls /sys/fs/cgroup/cgroup.procs"
    done = rl("run", "--rm", IMAGE, "sh", "-c", script)
    assert done.stdout == "0::/\n/sys/fs/cgroup/cgroup.procs\n"
