"""Limits hold, wherever the cgroup came from."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.guest.machine import HOG, IMAGE, SPIN, counter, inspect, left, rl, running, wait_until


@pytest.fixture(autouse=True)
def _nothing_is_left() -> object:
    yield
    wait_until(lambda: not left())


def test_a_container_sees_a_cgroup_tree_that_begins_with_itself() -> None:
    script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max; ls -d /sys/fs/cgroup/*/"
    done = rl("run", "--rm", "-m", "64m", IMAGE, "sh", "-c", script, check=False)
    assert done.stdout == f"0::/\n{64 << 20}\n"


def test_a_container_cannot_change_its_limit() -> None:
    script = "echo max >/sys/fs/cgroup/memory.max; cat /sys/fs/cgroup/memory.max"
    done = rl("run", "--rm", "-m", "64m", IMAGE, "sh", "-c", script)
    assert done.stdout == f"{64 << 20}\n"
    assert "Read-only file system" in done.stderr


def test_what_takes_more_memory_than_its_limit_is_killed_and_that_is_reported() -> None:
    try:
        assert (
            rl("run", "--name", "hog", "-m", "48m", IMAGE, "sh", "-c", HOG + "40M").returncode == 0
        )
        assert inspect("hog")["State"]["OOMKilled"] is False
        rl("rm", "hog")
        done = rl("run", "--name", "hog", "-m", "48m", IMAGE, *(HOG + "64M").split(), check=False)
        assert done.returncode == 137
        state = inspect("hog")["State"]
        assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
        events = rl("events", "--since", "10m", "--until", "0s", "--filter", "container=hog")
        assert " container oom " in events.stdout
    finally:
        rl("rm", "-f", "hog")


def test_the_least_memory_that_can_be_asked_for_is_enough_to_start() -> None:
    assert rl("run", "--rm", "-m", "6m", IMAGE, "echo", "hello").stdout == "hello\n"


def test_a_fork_bomb_stays_below_the_limit_of_processes() -> None:
    script = "(for i in $(seq 60); do sleep 1000 & done); exec sleep 1000"
    with running("bomb", "--pids-limit", "20", IMAGE, "sh", "-c", script) as cgroup:
        wait_until(lambda: counter(cgroup / "pids.events", "max") > 0)
        assert int((cgroup / "pids.current").read_text()) <= 20
        # The container is stuck, not the machine.
        assert rl("run", "--rm", IMAGE, "echo", "another").stdout == "another\n"


def test_the_processor_is_given_within_15_percent_of_the_quota() -> None:
    with running("busy", "--cpus", "0.2", IMAGE, "sh", "-c", SPIN) as cgroup:
        stat = cgroup / "cpu.stat"
        wait_until(lambda: counter(stat, "nr_throttled") > 0)

        def share() -> float:
            used, began = counter(stat, "usage_usec"), time.monotonic()
            time.sleep(2)
            used, passed = counter(stat, "usage_usec") - used, time.monotonic() - began
            return used / 1e6 / passed

        # The machine that the guest runs on may stall at any time, but not always.
        wait_until(lambda: share() == pytest.approx(0.2, rel=0.15))


def test_two_containers_compete_by_their_shares() -> None:
    with (
        running("much", "--cpu-shares", "2048", IMAGE, "sh", "-c", SPIN) as much,
        running("little", "--cpu-shares", "512", IMAGE, "sh", "-c", SPIN) as little,
    ):

        def ratio() -> float:
            before = [counter(one / "cpu.stat", "usage_usec") for one in (much, little)]
            time.sleep(2)
            after = [counter(one / "cpu.stat", "usage_usec") for one in (much, little)]
            used = [end - start for end, start in zip(after, before, strict=True)]
            return used[0] / max(used[1], 1)

        wait_until(lambda: 2.5 < ratio() < 6)


def test_writing_to_the_disk_is_slowed_down() -> None:
    def seconds(*options: str) -> float:
        write = "dd if=/dev/zero of=/root/file bs=1M count=4 conv=fsync 2>/dev/null"
        began = time.monotonic()
        rl("run", "--rm", *options, IMAGE, "sh", "-c", write)
        return time.monotonic() - began

    # Of 4 MiB the first fits in what the kernel lets through at once.
    slow = seconds("--device-write-bps", "/dev/ubda:1mb")
    assert slow > 2.5
    wait_until(lambda: seconds() < slow)


def test_what_is_executed_in_a_container_has_its_limits() -> None:
    with running("host", "-m", "48m", "--pids-limit", "50", IMAGE, "sleep", "1000") as cgroup:
        done = rl(
            "exec",
            "host",
            "sh",
            "-c",
            "cat /proc/self/cgroup; sleep 1000 & wc -l </sys/fs/cgroup/cgroup.procs",
        )
        assert done.stdout == "0::/\n3\n"
        done = rl("exec", "host", *(HOG + "64M").split(), check=False)
        assert done.returncode == 137
        assert counter(cgroup / "memory.events", "oom_kill") == 1
        assert rl("exec", "host", "echo", "alive").stdout == "alive\n"
        rl("exec", "-d", "host", "sleep", "1000")
        wait_until(lambda: len((cgroup / "cgroup.procs").read_text().split()) == 3)


def test_a_paused_container_does_nothing_until_it_goes_on() -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
    with running("ice", IMAGE, "sh", "-c", script) as cgroup:
        wait_until(lambda: rl("logs", "ice").stdout.count("\n") > 1)
        assert rl("pause", "ice").stdout == "ice\n"
        assert counter(cgroup / "cgroup.events", "frozen") == 1
        before = rl("logs", "ice").stdout
        assert "(Paused)" in rl("ps", "--filter", "status=paused").stdout
        assert inspect("ice")["State"]["Status"] == "paused"
        for command, said in {
            "pause ice": "container ice is already paused",
            "exec ice true": "container ice is paused, unpause it before exec",
            "attach ice": "you cannot attach to a paused container, unpause it first",
            "start ice": "cannot start a paused container, try unpause instead",
            "rm ice": "container ice is paused and must be unpaused first",
        }.items():
            done = rl(*command.split(), check=False)
            assert (done.returncode, said in done.stderr) == (125, True), done.stderr
        assert rl("logs", "ice").stdout == before
        assert rl("unpause", "ice").stdout == "ice\n"
        wait_until(lambda: len(rl("logs", "ice").stdout) > len(before))


@pytest.mark.parametrize("command", ["stop -t 20", "kill"])
def test_a_paused_container_can_be_ended(command: str) -> None:
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    with running("ice", IMAGE, "sh", "-c", script):
        wait_until(lambda: rl("logs", "ice").stdout == "ready\n")
        rl("pause", "ice")
        rl(*command.split(), "ice")
        wait_until(lambda: inspect("ice")["State"]["Status"] == "exited")
        assert inspect("ice")["State"]["ExitCode"] == (137 if command == "kill" else 3)


def test_limits_are_changed_while_the_container_runs_and_stay_changed() -> None:
    with running("moving", "-m", "48m", IMAGE, "sleep", "1000") as cgroup:
        hog = ("exec", "moving", *(HOG + "64M").split())
        assert rl(*hog, check=False).returncode == 137
        rl("update", "--memory", "128m", "--pids-limit", "30", "--cpus", "0.5", "moving")
        assert (cgroup / "memory.max").read_text() == f"{128 << 20}\n"
        assert (cgroup / "pids.max").read_text() == "30\n"
        assert (cgroup / "cpu.max").read_text() == "50000 100000\n"
        assert rl(*hog).returncode == 0
        host = inspect("moving")["HostConfig"]
        assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (128 << 20, 30, 500000000)
        rl("restart", "-t", "0", "moving")
        script = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max"
        done = rl("exec", "moving", "sh", "-c", script)
        assert done.stdout == f"{128 << 20}\n30\n50000 100000\n"
        done = rl("update", "--memory", "1m", "moving", check=False)
        assert (done.returncode, done.stderr) == (125, "rl: minimum memory limit allowed is 6MB\n")


def test_stats_tell_what_the_container_and_its_servers_use() -> None:
    script = "dd if=/dev/zero of=/file bs=1M count=2; " + SPIN
    limits = ("--cpus", "0.2", "-m", "64m", "--network", "none")
    with running("busy", *limits, IMAGE, "sh", "-c", script) as cgroup:
        wait_until(lambda: counter(cgroup / "cpu.stat", "nr_throttled") > 0)
        template = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.PIDs}} {{.Disk}}"
        name, share, used, *rest = rl("stats", "--no-stream", "--format", template).stdout.split()
        assert name == "busy"
        assert 0 < float(share.rstrip("%")) < 40
        assert used != "0B"
        assert " ".join(rest) == "/ 64MiB 0B / 0B 1 2.1MB"


@pytest.mark.parametrize("limits", [[], ["-m", "32m", "--cpus", "0.5"]])
def test_the_container_and_its_servers_are_apart_and_both_limited(limits: list[str]) -> None:
    with running("apart", *limits, IMAGE, "sleep", "1000") as cgroup:
        servers = cgroup.parent / "servers"
        names = {
            Path(f"/proc/{pid}/comm").read_text().strip()
            for pid in (servers / "cgroup.procs").read_text().split()
        }
        assert names == {"rl-supervisor", "rl-overlay"}
        assert int((servers / "memory.max").read_text()) == 1 << 30
        assert (servers / "cpu.max").read_text() == "100000 100000\n"
        assert len((cgroup / "cgroup.procs").read_text().split()) == 1


def test_a_supervisor_that_is_killed_leaves_a_cgroup_that_the_next_command_removes() -> None:
    with running("orphan", IMAGE, "sleep", "1000") as cgroup:
        (supervisor,) = [
            pid
            for pid in (cgroup.parent / "servers/cgroup.procs").read_text().split()
            if Path(f"/proc/{pid}/comm").read_text() == "rl-supervisor\n"
        ]
        os.kill(int(supervisor), signal.SIGKILL)
        wait_until(lambda: inspect("orphan")["State"]["Status"] == "exited")
        rl("run", "--rm", IMAGE, "true")
        wait_until(lambda: not cgroup.parent.exists())
        rl("start", "orphan")
        assert rl("exec", "orphan", "cat", "/proc/self/cgroup").stdout == "0::/\n"


def test_a_container_that_the_kernel_killed_is_restarted_in_a_fresh_cgroup() -> None:
    rl("run", "-d", "--name", "again", "--restart", "on-failure:1", "-m", "32m", IMAGE, "dd",
       "if=/dev/zero", "of=/dev/null", "count=1", "bs=64M")  # fmt: skip
    try:
        wait_until(lambda: inspect("again")["State"]["Status"] == "exited")
        assert inspect("again")["RestartCount"] == 1
        events = rl("events", "--since", "10m", "--until", "0s", "--filter", "container=again")
        assert events.stdout.count(" container oom ") == 2
    finally:
        rl("rm", "-f", "again")


def test_the_score_of_the_kernels_choice_is_set() -> None:
    done = rl("run", "--rm", "--oom-score-adj", "500", IMAGE, "cat", "/proc/self/oom_score_adj")
    assert done.stdout == "500\n"
    done = rl("run", "--rm", "--oom-score-adj", "-500", IMAGE, "true", check=False)
    assert "only the administrator may lower it" in done.stderr


def test_a_cgroup_namespace_can_be_the_hosts() -> None:
    done = rl("run", "--rm", "--cgroupns", "host", IMAGE, "cat", "/proc/self/cgroup")
    assert done.stdout.startswith("0::/")
    assert done.stdout.endswith("/container\n")


def test_without_a_cgroup_there_is_none() -> None:
    rl("run", "-d", "--name", "free", "--cgroups", "disabled", IMAGE, "sleep", "1000")
    try:
        done = rl("pause", "free", check=False)
        assert "it was started with --cgroups=disabled" in done.stderr
        assert left() == []
    finally:
        rl("rm", "-f", "free")


def test_a_budget_holds_for_all_containers_together() -> None:
    config = Path.home() / ".config/rl/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[budget]\nmemory = "96m"\ncpus = 0.5\npids = 40\n')
    try:
        with running("one", IMAGE, "sleep", "1000") as cgroup:
            together = cgroup.parent.parent
            assert (together / "memory.max").read_text() == f"{96 << 20}\n"
            assert (together / "pids.max").read_text() == "40\n"
            assert (together / "cpu.max").read_text() == "50000 100000\n"
            assert rl("exec", "one", *(HOG + "128M").split(), check=False).returncode == 137
            # What the configuration has no more does not go on.
            config.write_text("[budget]\npids = 50\n")
            with running("two", IMAGE, "sleep", "1000"):
                assert (together / "memory.max").read_text() == "max\n"
                assert (together / "pids.max").read_text() == "50\n"
                assert (together / "cpu.max").read_text() == "max 100000\n"
            config.unlink()
            rl("run", "--rm", IMAGE, "true")
            assert (together / "pids.max").read_text() == "max\n"
    finally:
        config.unlink(missing_ok=True)


def test_a_reservation_is_kept_all_the_way_down_to_the_container() -> None:
    mib = 1 << 20

    def reserved(*cgroups: Path) -> list[int]:
        return [int((one / "memory.low").read_text()) // mib for one in cgroups]

    with running("one", "--memory-reservation", "16m", IMAGE, "sleep", "1000") as one:
        together = one.parent.parent
        assert reserved(one, one.parent, together) == [16, 16, 16]
        with running("two", "--memory-reservation", "8m", IMAGE, "sleep", "1000") as two:
            assert reserved(two, two.parent, together) == [8, 8, 24]
            rl("update", "--memory-reservation", "12m", "two")
            assert reserved(two, two.parent, together) == [12, 12, 28]
        wait_until(lambda: reserved(together) == [16])
