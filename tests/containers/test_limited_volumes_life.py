"""The server of a volume with a limit: when it runs, and what becomes of whose death."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.runner import Rl
from tests.support.undefended import BESIDE_THE_HOLDER, DUMPABLE, changed
from tests.support.waiting import PATIENCE, wait_until

MIB = 1 << 20
ROUNDS = int(os.environ.get("RL_TEST_ROUNDS", "4"))
# Never idle, and mostly near the limit.
WRITES = """
i=0
while :; do
    i=$((i+1))
    echo $i > /v/$((i % 50))
    head -c 30000 /bin/busybox >> /v/g
    rm -f /v/$((i % 7))
    [ $((i % 20)) -gt 0 ] || rm /v/g
done 2> /dev/null
"""


@pytest.fixture
def rl(make_rl: Callable[[], Rl], alpine: str) -> Iterator[Rl]:
    """Return the command with a store that has the volume `bounded`, of 8 MiB."""
    made = make_rl()
    made("pull", "-q", alpine)
    made("volume", "create", "-o", "size=8m", "-o", "inodes=500", "bounded")
    yield made
    made("rm", "-f", "--all")
    assert leaks.wait_for_none(made.directory, PATIENCE) == []


def start(rl: Rl, name: str, *options: str, script: str = "sleep 100000") -> None:
    volume = ("-v", "bounded:/v")
    rl("run", "-q", "-d", "--name", name, *options, *volume, "alpine", "sh", "-c", script)


def named(rl: Rl, name: str) -> list[int]:
    """Return the processes of ours with this name that belong to the store."""
    found = []
    for line in leaks.processes(rl.directory):
        pid = int(line.split()[0])
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
        except OSError:
            continue
    return found


def exact(rl: Rl, name: str) -> bool:
    """Tell whether df in a container says what du says of the volume on the host."""
    shown = rl("exec", name, "sh", "-c", "df -k /v | tail -1; df -i /v | tail -1").stdout.split()
    path = rl.root / "volumes/bounded/_data"
    done = subprocess.run(["du", "-s", "-B1", path], check=True, capture_output=True, text=True)
    files = sum(1 for _ in path.rglob("*")) + 1
    return (int(shown[2]) * 1024, int(shown[8])) == (int(done.stdout.split()[0]), files)


def state(rl: Rl, name: str) -> str:
    form = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"
    return rl("inspect", "-f", form, name).stdout.strip()


def test_server_runs_from_the_first_container_to_the_last(rl: Rl) -> None:
    start(rl, "first")
    (server,) = named(rl, "rl-volume")
    start(rl, "second")
    rl("rm", "-f", "first")
    assert named(rl, "rl-volume") == [server]
    rl("rm", "-f", "second")
    wait_until(lambda: not named(rl, "rl-volume") and not named(rl, "rl-holder"))
    start(rl, "third")
    assert len(named(rl, "rl-volume")) == 1


def test_containers_without_such_a_volume_have_nothing_to_do_with_it(rl: Rl) -> None:
    options = ("-v", "plain:/v", "--storage-opt", "size=8m")
    rl("run", "-q", "-d", "--name", "free", *options, "alpine", "sleep", "100000")
    assert named(rl, "rl-holder") == named(rl, "rl-volume") == []
    start(rl, "bound")
    # Its namespace is none of the holder's.
    (holder,) = named(rl, "rl-holder")
    pid = int(rl("inspect", "-f", "{{.State.Pid}}", "free").stdout)
    os.kill(holder, signal.SIGKILL)
    rl("wait", "bound")
    assert state(rl, "free") == "running 0"
    assert Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("process", ["rl-volume", "rl-holder"])
def test_containers_fail_with_what_serves_their_volume(rl: Rl, process: str) -> None:
    start(rl, "idle")
    start(rl, "busy", script=WRITES)
    start(rl, "again", "--restart", "always")
    (killed,) = named(rl, process)
    os.kill(killed, signal.SIGKILL)
    rl("wait", "idle", "busy")
    why = {
        "rl-volume": "the server of volume bounded ended unexpectedly (see its server.log)",
        "rl-holder": "rl-holder ended, which held what the container shares with others",
    }
    for name in ("idle", "busy"):
        assert state(rl, name) == f"exited 125 {why[process]}" or (
            # Both end at once, and either may be seen first.
            process == "rl-holder" and state(rl, name) == f"exited 125 {why['rl-volume']}"
        )
    # A start that finds the holder on its way out fails, and is repeated.
    form = "{{.RestartCount}} {{.State.Status}}"
    wait_until(lambda: re.match("[1-9].* running", rl("inspect", "-f", form, "again").stdout))
    wait_until(lambda: exact(rl, "again"))
    rl("start", "idle")
    rl("exec", "idle", "sh", "-c", "echo x > /v/x")
    assert rl("exec", "again", "cat", "/v/x").stdout == "x\n"


def test_container_whose_supervisor_is_killed_takes_nobody_along(rl: Rl) -> None:
    start(rl, "victim", script=WRITES)
    start(rl, "other")
    (server,) = named(rl, "rl-volume")
    container_id = rl("inspect", "-f", "{{.Id}}", "victim").stdout.strip()
    recorded = json.loads((rl.root / "containers" / container_id / "state.json").read_text())
    supervisor = recorded["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: rl("ps", "-q", "--filter", "name=victim").stdout == "")
    wait_until(lambda: exact(rl, "other"))
    assert named(rl, "rl-volume") == [server]
    rl("exec", "other", "sh", "-c", "rm -rf /v/*; echo x > /v/x; cat /v/x")


def test_count_is_exact_whoever_is_killed_and_whenever(rl: Rl) -> None:
    for _ in range(ROUNDS):
        start(rl, "one", script=WRITES)
        start(rl, "two", script=WRITES)
        time.sleep(random.uniform(0, 0.5))
        pids = named(rl, random.choice(["rl-volume", "rl-holder", "rl-supervisor"]))
        os.kill(random.choice(pids), signal.SIGKILL)
        rl("rm", "-f", "one", "two")
        start(rl, "look")
        assert exact(rl, "look")
        rl("exec", "look", "sh", "-c", "rm -rf /v/*; echo x > /v/x")
        rl("rm", "-f", "look")


def test_volume_made_anew_under_the_same_name_is_empty(rl: Rl) -> None:
    for _ in range(3):
        start(rl, "user", script="echo old > /v/old; sleep 100000")
        rl("exec", "user", "sh", "-c", "while [ ! -s /v/old ]; do :; done")
        rl("rm", "-f", "user")
        rl("volume", "rm", "bounded")
        rl("volume", "create", "-o", "size=4m", "bounded")
        shown = rl("run", "-q", "--rm", "-v", "bounded:/v", "alpine", "sh", "-c",
                   "ls /v; df -k /v | tail -1").stdout  # fmt: skip
        assert shown.split()[1] == "4096"


def test_containers_may_start_all_at_once(rl: Rl) -> None:
    command = ("run", "-q", "--rm", "-v", "bounded:/v", "alpine", "sh", "-c",
               "echo x >> /v/log; cat /proc/sys/kernel/random/uuid > /v/$(hostname)")  # fmt: skip
    running = [rl.start(*command) for _ in range(6)]
    assert [process.wait(PATIENCE) for process in running] == [0] * 6
    shown = rl("run", "-q", "--rm", "-v", "bounded:/v", "alpine", "sh", "-c",
               "wc -l < /v/log; ls /v | wc -l").stdout  # fmt: skip
    assert shown.split() == ["6", "7"]


@pytest.mark.parametrize("left", ["{", '{"created": 5, "labels": [], "limit": {"size": "x"}}'])
def test_volume_whose_limit_is_lost_is_refused_and_not_served_without(rl: Rl, left: str) -> None:
    (rl.root / "volumes/bounded/volume.json").write_text(left)
    done = rl("run", "-q", "--rm", "-v", "bounded:/v", "alpine", "true", check=False)
    assert (done.returncode, done.stderr) == (
        125, "rl: cannot serve volume bounded: its limit is lost with its volume.json\n",
    )  # fmt: skip


def test_server_is_out_of_reach_even_for_a_container_that_sees_it(rl: Rl) -> None:
    start(rl, "other")
    script = """
for name in rl-volume rl-holder; do
    for pid in $(grep -l "^$name$" /proc/[0-9]*/comm 2> /dev/null | cut -d/ -f3); do
        echo $name $(cat /proc/$pid/environ /proc/$pid/mem /proc/$pid/root/etc/passwd \
            /proc/$pid/fd/0 /proc/$pid/maps 2> /dev/null | wc -c) \
            $(readlink /proc/$pid/fd/* /proc/$pid/exe 2> /dev/null | wc -l) \
            $(nsenter -t $pid -U -m true 2> /dev/null && echo in)
    done
done
"""
    (mine,) = named(rl, "rl-volume")
    options = ("--pid", "host", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined")

    def attack(rl: Rl) -> set[str]:
        seeing = ("run", "-q", "--rm", *options, "-v", "bounded:/v", "alpine", "sh", "-c", script)
        return set(rl(*seeing).stdout.splitlines())

    out_of_reach = {"rl-volume 0 0", "rl-holder 0 0"}
    assert attack(rl) == out_of_reach
    assert named(rl, "rl-volume") == [mine]
    rl("rm", "-f", "other")
    # There are two walls, and each holds alone for the server.
    for missing, reached in (
        ((DUMPABLE,), set[str]()),
        ((BESIDE_THE_HOLDER,), {"rl-holder"}),
        ((DUMPABLE, BESIDE_THE_HOLDER), {"rl-holder", "rl-volume"}),
    ):
        # Started anew, by the interpreter that is changed.
        wait_until(lambda: named(rl, "rl-holder") == [])
        found = attack(changed(rl, *missing))
        assert {line.split()[0] for line in found - out_of_reach} == reached
