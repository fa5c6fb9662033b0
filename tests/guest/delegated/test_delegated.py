"""Where a cgroup was delegated to a job that has no session."""

from __future__ import annotations

from pathlib import Path

from tests.guest.machine import IMAGE, left, rl, running, wait_until


def own() -> str:
    return Path("/proc/self/cgroup").read_text().strip().removeprefix("0::")


def test_our_own_cgroup_is_shared_out() -> None:
    mine = own().removesuffix("/rl-others")
    # Its servers are limited, whatever itself may be.
    with running("job", IMAGE, "sleep", "1000") as leaf:
        assert str(leaf).startswith(f"/sys/fs/cgroup{mine}/rl/")
        assert own() == f"{mine}/rl-others"
    wait_until(lambda: not left())
    # And once more from below.
    with running("job", "-m", "64m", IMAGE, "sleep", "1000") as leaf:
        assert str(leaf).startswith(f"/sys/fs/cgroup{mine}/rl/")


def test_info_says_that_it_is_delegated() -> None:
    done = rl("info", "-f", "{{.CgroupDriver}} {{.CgroupParent}}")
    assert done.stdout == f"cgroupfs {own().removesuffix('/rl-others')}\n"


def test_a_parent_is_below_what_was_delegated() -> None:
    rl("run", "--rm", "-m", "64m", IMAGE, "true")
    with running("job", "--cgroup-parent", "jobs/night", IMAGE, "sleep", "1000") as leaf:
        assert "/jobs/night/" in str(leaf)
    # What was made for it goes with it.
    top = Path(f"/sys/fs/cgroup{own().removesuffix('/rl-others')}")
    wait_until(lambda: not (top / "jobs").exists())
    done = rl("run", "--rm", "--cgroup-parent", "/system.slice", IMAGE, "true", check=False)
    assert "the cgroup parent /system.slice is not below" in done.stderr


def test_a_parent_that_was_there_stays() -> None:
    rl("run", "--rm", IMAGE, "true")
    made = Path(f"/sys/fs/cgroup{own().removesuffix('/rl-others')}/mine")
    made.mkdir()
    try:
        with running(
            "job", "--cgroup-parent", "mine/deep", "-m", "64m", IMAGE, "sleep", "9"
        ) as leaf:
            assert leaf.is_relative_to(made / "deep")
        wait_until(lambda: not (made / "deep").exists())
        with running("job", "--cgroup-parent", "mine", IMAGE, "sleep", "9") as leaf:
            container = leaf.parent
        wait_until(lambda: not container.exists())
        rl("run", "--rm", IMAGE, "true")
        assert made.is_dir()
    finally:
        made.rmdir()
