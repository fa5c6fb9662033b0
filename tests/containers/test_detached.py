"""Containers that outlive the command that started them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rootless.containers.annotation import STOP_SIGNAL
from rootless.containers.state import State
from rootless.containers.stop import stop_signal
from rootless.containers.store import Container
from rootless.kernel import proc
from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

# Says when it is up, and ends by itself when it is asked to.
SERVICE = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"


@contextmanager
def detached(rl: Rl, name: str, *options: str, script: str = SERVICE) -> Iterator[str]:
    """Run a detached container until the block ends; return its ID."""
    done = rl("run", "-d", "--name", name, *options, "alpine", "sh", "-c", script)
    try:
        yield done.stdout.strip()
    finally:
        rl("rm", "-f", "-v", name)


def inspect(rl: Rl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rl("inspect", name).stdout)[0]
    return found


def state_of(rl: Rl, name: str) -> dict[str, Any]:
    state: dict[str, Any] = inspect(rl, name)["State"]
    return state


def process_of(rl: Rl, container_id: str, which: str) -> int:
    state = json.loads((rl.root / "containers" / container_id / "state.json").read_bytes())
    pid: int = state[which]["pid"]
    return pid


def wait_for_output(rl: Rl, name: str, line: bytes) -> None:
    """Wait until a container has printed a line, without asking again and again."""
    with rl.start("logs", "-f", name, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        for found in follower.stdout:
            if found == line:
                break
        follower.kill()


def wait_for_end(pid: int) -> None:
    with open(os.pidfd_open(pid)) as pidfd:
        assert select.select([pidfd], [], [], PATIENCE)[0]


def test_detached_container_runs_on_and_its_id_is_printed(rl: Rl) -> None:
    with detached(rl, "service") as container_id:
        assert len(container_id) == 64
        assert rl("ps", "--no-trunc", "-q").stdout.strip() == container_id
        wait_for_output(rl, "service", b"up\n")
        assert state_of(rl, "service")["Status"] == "running"


def test_supervisor_has_a_session_of_its_own_and_holds_nothing_of_the_terminal(rl: Rl) -> None:
    with detached(rl, "session") as container_id:
        pid = process_of(rl, container_id, "supervisor")
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)]
        assert held[:2] == ["/dev/null", "/dev/null"]
        assert held[2].endswith("/supervisor.log")


def test_detached_container_ends_with_the_code_of_its_command(rl: Rl) -> None:
    with detached(rl, "ending"):
        wait_for_output(rl, "ending", b"up\n")
        assert rl("kill", "-s", "TERM", "ending").stdout == "ending\n"
        assert rl("wait", "ending").stdout == "3\n"
        assert (state_of(rl, "ending")["Status"], state_of(rl, "ending")["ExitCode"]) == (
            "exited",
            3,
        )
        assert rl("logs", "ending").stdout == "up\nbye\n"


def test_detached_container_that_cannot_start_is_an_error(rl: Rl) -> None:
    done = rl("run", "-d", "--name", "broken", "alpine", "no-such-program", check=False)
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert state_of(rl, "broken")["Status"] == "exited"
    rl("rm", "broken")


def test_rm_of_a_detached_container_is_done_by_its_supervisor(rl: Rl) -> None:
    done = rl("run", "-d", "--rm", "-v", "/data", "alpine", "true")
    container = rl.root / "containers" / done.stdout.strip()
    # Nobody has to come by: with the last process the container is gone.
    assert leaks.wait_for_none(container) == []
    rl("wait", done.stdout.strip(), check=False)
    assert not container.exists()


def test_created_container_waits_for_its_start(rl: Rl) -> None:
    container_id = rl("create", "--name", "made", "alpine", "sh", "-c", "echo done").stdout.strip()
    assert state_of(rl, "made")["Status"] == "created"
    assert rl("logs", "made").stdout == ""
    assert rl("start", "-a", "made").stdout == "done\n"
    assert rl("start", "made").stdout == "made\n"
    assert rl("wait", container_id).stdout == "0\n"
    assert rl("logs", "made").stdout == "done\ndone\n"
    rl("rm", "made")


def test_start_of_a_running_container_changes_nothing(rl: Rl) -> None:
    with detached(rl, "once") as container_id:
        before = process_of(rl, container_id, "init")
        assert rl("start", "once").stdout == "once\n"
        assert process_of(rl, container_id, "init") == before


def test_container_started_twice_at_once_runs_once(rl: Rl) -> None:
    container_id = rl("create", "--name", "raced", "alpine", "sleep", "1000").stdout.strip()
    starts = [rl.start("start", "raced", stderr=subprocess.PIPE) for _ in range(4)]
    said = [process.communicate()[1] for process in starts]
    for text in said:
        assert text == b"" or b"is already running" in text
    # One supervisor and what serves its container; the others end.
    wait_until(
        lambda: len([line for line in leaks.processes(rl.directory) if "start" in line]) <= 2
    )
    assert rl("ps", "-q", "--no-trunc").stdout.split() == [container_id]
    rl("rm", "-f", "raced")


def test_what_a_container_wrote_is_there_when_it_starts_again(rl: Rl) -> None:
    script = "cat /mine 2>/dev/null; echo kept > /mine"
    rl("run", "--name", "again", "alpine", "sh", "-c", script)
    assert rl("start", "-a", "again").stdout == "kept\n"
    rl("rm", "again")


def test_start_with_input_gives_it_to_the_command(rl: Rl) -> None:
    rl("create", "-i", "--name", "typed", "alpine", "cat")
    assert rl("start", "-ai", "typed", input="words\n").stdout == "words\n"
    rl("rm", "typed")


def test_start_returns_the_code_of_the_command(rl: Rl) -> None:
    rl("create", "--name", "five", "alpine", "sh", "-c", "exit 5")
    assert rl("start", "-a", "five", check=False).returncode == 5
    rl("rm", "five")


def test_restart_is_a_stop_and_a_start(rl: Rl) -> None:
    with detached(rl, "anew") as container_id:
        wait_for_output(rl, "anew", b"up\n")
        before = process_of(rl, container_id, "init")
        assert rl("restart", "anew").stdout == "anew\n"
        assert process_of(rl, container_id, "init") != before
        rl("stop", "anew")
        assert rl("logs", "anew").stdout.splitlines()[:3] == ["up", "bye", "up"]


@pytest.mark.parametrize(("named", "number"), [("SIGINT", 2), ("99", 15), ("NONSENSE+x", 15)])
def test_stop_signal_that_an_image_made_up_is_the_default(named: str, number: int) -> None:
    config = {"annotations": {STOP_SIGNAL: named}}
    container = Container("x", Path(), config, State(name="x", created_at=""))
    assert stop_signal(container) == number


def test_stop_signal_and_timeout_are_those_that_were_asked_for(rl: Rl) -> None:
    script = "trap 'echo usr; exit 4' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"
    with detached(rl, "asked", "--stop-signal", "USR1", script=script):
        wait_for_output(rl, "asked", b"up\n")
        rl("stop", "asked")
        assert rl("wait", "asked").stdout == "4\n"
    deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    with detached(rl, "deaf", "--stop-timeout", "0", script=deaf):
        wait_for_output(rl, "deaf", b"up\n")
        rl("stop", "deaf")
        assert rl("wait", "deaf").stdout == "137\n"


def test_stop_may_name_another_signal(rl: Rl) -> None:
    script = "trap 'exit 5' USR2; trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"
    with detached(rl, "told", script=script):
        wait_for_output(rl, "told", b"up\n")
        rl("stop", "-s=USR2", "told")
        assert rl("wait", "told").stdout == "5\n"


def test_all_means_every_container(fresh_rl: Rl) -> None:
    fresh_rl("create", "--name", "idle", "alpine", "true")
    with detached(fresh_rl, "busy"):
        refused = fresh_rl("rm", "-a", check=False)
        assert (refused.returncode, refused.stdout) == (125, "idle\n")
        assert fresh_rl("kill", "-a", "-s=CONT").stdout == "busy\n"
        assert fresh_rl("restart", "-a", "-t=0").stdout == "busy\n"
        assert fresh_rl("stop", "-a", "-t=0").stdout == "busy\n"
        assert fresh_rl("stop", "-a").stdout == ""
        assert fresh_rl("rm", "-a").stdout == "busy\n"


def test_cidfile_holds_the_id_and_is_never_overwritten(rl: Rl, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    with detached(rl, "noted", "--cidfile", str(file)) as container_id:
        assert file.read_text() == container_id
        done = rl("run", "--cidfile", str(file), "alpine", "true", check=False)
        assert done.returncode == 125
        assert "container ID file found" in done.stderr


def test_wait_ends_at_the_end_of_a_container_that_is_removed(rl: Rl) -> None:
    with detached(rl, "watched"):
        with rl.start("wait", "watched", stdout=subprocess.PIPE) as waiting:
            wait_for_output(rl, "watched", b"up\n")
            rl("rm", "-f", "watched")
            out, _ = waiting.communicate(timeout=PATIENCE)
        assert out in (b"137\n", b"255\n")


def test_kill_of_a_container_that_does_not_run_is_an_error(rl: Rl) -> None:
    rl("create", "--name", "idle", "alpine", "true")
    done = rl("kill", "idle", check=False)
    assert done.returncode == 125
    assert "cannot kill container idle: it is not running" in done.stderr
    rl("rm", "idle")


@pytest.mark.parametrize("victim", ["supervisor", "init"])
def test_kill_9_leaves_a_truthful_state_and_all_of_the_log(rl: Rl, victim: str) -> None:
    with detached(rl, "hit") as container_id:
        wait_for_output(rl, "hit", b"up\n")
        pids = [process_of(rl, container_id, name) for name in ("init", "supervisor")]
        os.kill(process_of(rl, container_id, victim), signal.SIGKILL)
        for pid in pids:
            if os.path.exists(f"/proc/{pid}"):
                wait_for_end(pid)
        state = state_of(rl, "hit")
        assert (state["Status"], state["Pid"]) == ("exited", 0)
        assert state["ExitCode"] == (255 if victim == "supervisor" else 137)
        assert rl("logs", "hit").stdout == "up\n"
        status = ("ps", "-a", "-f", "name=hit", "--format", "{{.Status}}")
        wait_until(lambda: " ago" in rl(*status).stdout)
        finished = state_of(rl, "hit")["FinishedAt"]
        assert finished > state["StartedAt"]
        rl("cp", "hit:/etc/hostname", "-")
        assert state_of(rl, "hit")["FinishedAt"] == finished
        # It can be used again.
        rl("start", "hit")
        assert state_of(rl, "hit")["Status"] == "running"


def test_foreground_container_survives_the_command_that_was_killed(rl: Rl) -> None:
    with rl.start(
        "run", "--name", "left", "alpine", "sh", "-c", SERVICE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    assert state_of(rl, "left")["Status"] == "running"
    rl("stop", "left")
    assert rl("logs", "left").stdout == "up\nbye\n"
    rl("rm", "left")


def test_command_that_is_interrupted_before_the_start_leaves_nothing(fresh_rl: Rl) -> None:
    fresh_rl("pull", "-q", "alpine")
    for delay in (0.05, 0.1, 0.15, 0.2):
        with fresh_rl.start("run", "-d", "--rm", "alpine", "sleep", "1000") as process:
            time.sleep(delay)
            process.kill()

    def nothing_runs() -> bool:
        # It may have agreed to the start already; then the container runs, sooner or later.
        for container_id in fresh_rl("ps", "-q").stdout.split():
            fresh_rl("rm", "-f", container_id, check=False)
        return leaks.processes(fresh_rl.directory) == []

    wait_until(nothing_runs)
    fresh_rl("run", "--rm", "alpine", "true")
    assert leaks.wait_for_none(fresh_rl.directory) == []
    assert list((fresh_rl.root / "containers").iterdir()) == []


def memory(pid: int) -> int:
    """Return a process's memory in KiB: what it shares by fork counts in both.

    Its PSS, which would count that once, is closed to everyone: it cannot be traced.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def wakeups(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("ctxt_switches")[2]


def serving(supervisor: int) -> list[int]:
    """Return the processes of ours that serve a container: not its PID 1."""
    children = [pid for pid, parent in proc.parents().items() if parent == supervisor]
    return [supervisor, *(pid for pid in children if name_of(pid) != "sleep")]


def serves(supervisor: int) -> bool:
    """Tell whether a supervisor and an overlay server is all that serves a container."""
    return sorted(map(name_of, serving(supervisor))) == ["rl-overlay", "rl-supervisor"]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_idle_container_costs_little_memory_and_no_time(rl: Rl) -> None:
    # pasta wakes up each second by itself.
    alone, idle = ("--network", "none"), "exec sleep 1000"
    with (
        detached(rl, "idle1", *alone, script=idle) as one,
        detached(rl, "idle2", *alone, script=idle) as two,
    ):
        supervisors = [process_of(rl, name, "supervisor") for name in (one, two)]
        for supervisor in supervisors:
            # PID 1 is a shell for a moment.
            wait_until(partial(serves, supervisor))
        served = [serving(supervisor) for supervisor in supervisors]
        for pids in served:
            assert sum(map(memory, pids)) < 24_000
        processes = [pid for pids in served for pid in pids]

        def at_rest() -> bool:
            calm = list(map(wakeups, processes))
            time.sleep(1)
            return list(map(wakeups, processes)) == calm

        # What the start left to do may come a moment later; then nothing does.
        wait_until(at_rest)
