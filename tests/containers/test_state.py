"""What `ps` and `inspect` say of a container, and what ends it, in every state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rootless.containers.state import parse_state
from tests.support import images
from tests.support.oci import Layer, tar_of, write_layout
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until


@contextmanager
def running(
    rl: Rl, name: str, *command: str, rm: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a container in the background of the test until it prints its first line."""
    script = command or ("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
    with rl.start("run", "--name", name, "alpine", *script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            rl("rm", "-f", name, check=False)
            process.wait(PATIENCE)


def inspect(rl: Rl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rl("inspect", name).stdout)[0]
    return found


def state_of(rl: Rl, name: str) -> dict[str, Any]:
    state: dict[str, Any] = inspect(rl, name)["State"]
    return state


def recorded(rl: Rl, name: str, which: str) -> int:
    """Return the process that the state names: init or supervisor."""
    path = rl.root / "containers" / inspect(rl, name)["Id"] / "state.json"
    pid: int = json.loads(path.read_bytes())[which]["pid"]
    return pid


def test_running_container_is_listed_with_its_process(rl: Rl) -> None:
    with running(rl, "seen"):
        state = state_of(rl, "seen")
        assert (state["Status"], state["Running"]) == ("running", True)
        assert os.path.exists(f"/proc/{state['Pid']}")
        assert rl("ps", "--format", "{{.Names}} {{.State}}").stdout == "seen running\n"


def test_exit_code_and_times_are_recorded(rl: Rl) -> None:
    rl("run", "--name", "ended", "alpine", "sh", "-c", "exit 3", check=False)
    state = state_of(rl, "ended")
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 3, 0)
    assert state["StartedAt"] < state["FinishedAt"]
    assert rl("ps", "-q").stdout == ""
    rl("rm", "ended")


def test_failure_to_start_is_recorded_with_its_reason(rl: Rl) -> None:
    rl("run", "--name", "failed", "alpine", "no-such-program", check=False)
    state = state_of(rl, "failed")
    assert (state["Status"], state["ExitCode"]) == ("exited", 127)
    assert "no-such-program" in state["Error"]
    rl("rm", "failed")


def test_container_whose_processes_were_all_killed_is_not_said_to_run(rl: Rl) -> None:
    with running(rl, "orphan") as process:
        init = recorded(rl, "orphan", "init")
        os.kill(recorded(rl, "orphan", "supervisor"), signal.SIGKILL)
        assert process.wait(PATIENCE) == 125
        # The overlay server sees the supervisor's death and ends the container.
        wait_until(lambda: not os.path.exists(f"/proc/{init}"))
        state = state_of(rl, "orphan")
        assert (state["Status"], state["Pid"], state["ExitCode"]) == ("exited", 0, 255)
        assert "supervisor" in state["Error"]


@pytest.mark.parametrize("field", ["start", "boot", "pid"])
def test_another_process_with_the_recorded_number_is_not_taken_for_it(rl: Rl, field: str) -> None:
    with running(rl, "reused"):
        state_file = rl.root / "containers" / inspect(rl, "reused")["Id"] / "state.json"
        state = json.loads(state_file.read_bytes())
        for process in (state["init"], state["supervisor"]):
            process[field] = {"start": 1, "boot": "another", "pid": os.getpid()}[field]
        saved = state_file.read_bytes()
        state_file.write_text(json.dumps(state))
        assert state_of(rl, "reused")["Running"] is False
        state_file.write_bytes(saved)
        assert state_of(rl, "reused")["Running"] is True


@pytest.mark.parametrize(
    "damage",
    ["", "[]", '{"status": "running"}', '{"name": 1, "init": {}}', '{"name": 7, "created_at": ""}'],
)
def test_damaged_container_is_in_nobodys_way_and_can_be_removed(rl: Rl, damage: str) -> None:
    for name in ("whole", "broken"):
        rl("run", "--name", name, "alpine", "sh", "-c", "chown 7 /etc/motd")
    broken = inspect(rl, "broken")["Id"]
    (rl.root / "containers" / broken / "state.json").write_text(damage)
    assert rl("ps", "-a", "--format", "{{.Names}}").stdout == "whole\n"
    done = rl("inspect", broken[:12], check=False)
    assert done.returncode == 125
    assert f"rl rm --force {broken[:12]}" in done.stderr
    rl("rm", "whole")
    rl("rm", "-f", broken[:12])
    assert list((rl.root / "containers").iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        5,
        [{}],
        [{"wish": [], "attachment": None, "endpoint": ""}],
        [{"wish": {"name": 3, "aliases": []}, "attachment": None, "endpoint": ""}],
        [{"wish": {"name": "net", "aliases": []}, "attachment": {"x": "1"}, "endpoint": ""}],
        [{"wish": {"name": "net", "aliases": "ab"}, "attachment": None, "endpoint": ""}],
        [{"wish": {"name": "net", "aliases": []}, "attachment": None, "endpoint": 1}],
    ],
)
def test_container_whose_networks_are_damaged_is_in_no_neighbours_way(
    rl: Rl, damage: object
) -> None:
    rl("network", "create", "net")
    for name in ("whole", "broken"):
        rl("create", "--name", name, "--network", "net", "alpine", "true")
    broken = inspect(rl, "broken")["Id"]
    state_file = rl.root / "containers" / broken / "state.json"
    state = json.loads(state_file.read_bytes())
    state_file.write_text(json.dumps({**state, "networks": damage}))
    assert rl("ps", "-a", "--format", "{{.Names}} {{.Networks}}").stdout == "whole net\n"
    assert json.loads(rl("network", "inspect", "net").stdout)[0]["Name"] == "net"
    rl("start", "-a", "whole")
    assert f"rl rm --force {broken[:12]}" in rl("inspect", broken[:12], check=False).stderr
    rl("rm", "-f", "whole", broken[:12])
    rl("network", "rm", "net")


@pytest.mark.parametrize(
    "field",
    [
        {"name": 7}, {"status": []}, {"status": "lost"}, {"exit_code": "1"}, {"restarts": None},
        {"stopped": "no"}, {"cgroup": 5}, {"restart": 1}, {"disk": 5}, {"limits": []},
        {"init": 5}, {"supervisor": {"pid": "x", "start": 1, "boot": ""}}, {"ports": 7},
        {"ports": [{}]}, {"ports": [{"container": "80"}]}, {"finished_at": 7}, {"networks": 5},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_state_with_a_value_that_we_never_write_is_damaged(field: dict[str, Any]) -> None:
    whole = {"name": "whole", "created_at": "2026-01-01T00:00:00.000000Z"}
    assert parse_state(json.dumps(whole).encode()).name == "whole"
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        parse_state(json.dumps({**whole, **field}).encode())


def test_field_of_a_newer_version_is_passed_over(rl: Rl) -> None:
    rl("run", "--name", "newer", "alpine", "true")
    state_file = rl.root / "containers" / inspect(rl, "newer")["Id"] / "state.json"
    state_file.write_text(json.dumps({**json.loads(state_file.read_bytes()), "future": 1}))
    assert state_of(rl, "newer")["Status"] == "exited"
    rl("rm", "newer")


def test_end_is_seen_though_nobody_reads_the_output(rl: Rl) -> None:
    # 100,000 bytes: more than our own pipe to the reader holds, less than both.
    script = "echo up; head -c 100000 /dev/zero; exit 5"
    with rl.start(
        "run", "--name", "unread", "alpine", "sh", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"up\n"
        wait_until(lambda: state_of(rl, "unread")["Status"] != "running")
        state = state_of(rl, "unread")
        assert (state["Status"], state["ExitCode"]) == ("exited", 5)
        assert len(process.stdout.read()) == 100000
        assert process.wait(PATIENCE) == 5
    rl("rm", "unread")


@pytest.mark.parametrize("command", [["stop", "-t", "0"], ["restart", "-t", "0"], ["rm", "-f"]])
def test_reader_that_stalls_delays_nobody(rl: Rl, command: list[str]) -> None:
    script = "echo up; exec yes"
    with rl.start(
        "run", "--name", "stalled", "alpine", "sh", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"up\n"
        rl(*command, "stalled")
        if command[0] == "stop":
            assert state_of(rl, "stalled")["Status"] == "exited"
            rl("rm", "stalled")
        rl("rm", "-f", "stalled")
        # It gets all of it all the same.
        rest = process.stdout.read()
        assert len(rest) > 65536
        assert rest == b"y\n" * (len(rest) // 2)
        assert process.wait(PATIENCE) == 137


def test_stopped_supervisor_does_not_make_a_dead_container_live(rl: Rl) -> None:
    with running(rl, "frozen") as process:
        supervisor = recorded(rl, "frozen", "supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(recorded(rl, "frozen", "init"), signal.SIGKILL)
        wait_until(lambda: state_of(rl, "frozen")["Status"] == "exited")
        os.kill(supervisor, signal.SIGCONT)
        assert process.wait(PATIENCE) == 137
        assert state_of(rl, "frozen")["ExitCode"] == 137


def test_running_container_is_removed_only_by_force(rl: Rl) -> None:
    with running(rl, "busy") as process:
        done = rl("rm", "busy", check=False)
        assert done.returncode != 0
        assert "is running" in done.stderr
        assert rl("rm", "-f", "busy").stdout == "busy\n"
        assert process.wait(PATIENCE) == 128 + signal.SIGKILL
        assert "no such container" in rl("inspect", "busy", check=False).stderr.lower()


def test_stop_lets_the_command_end_by_itself(rl: Rl) -> None:
    with running(rl, "polite") as process:
        assert rl("stop", "polite").stdout == "polite\n"
        assert process.wait(PATIENCE) == 0
        assert state_of(rl, "polite")["Status"] == "exited"
        # Once more is no error, as in docker.
        assert rl("stop", "polite").stdout == "polite\n"


def test_stop_kills_what_does_not_end(rl: Rl) -> None:
    deaf = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    with running(rl, "deaf", *deaf) as process:
        rl("stop", "-t", "0", "deaf")
        assert process.wait(PATIENCE) == 128 + signal.SIGKILL


def test_stop_sends_the_signal_that_the_image_names(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    script = "trap 'echo int; exit 7' INT; trap 'exit 8' TERM; echo up; while :; do sleep 0.1; done"
    config = {"StopSignal": "SIGINT", "Cmd": ["/bin/sh", "/script"]}
    images.busybox(tmp_path, {"script": script}, config)
    name = f"{registry.host}/tests/stop"
    registry.push(f"oci:{tmp_path}:latest", "tests/stop")
    with rl.start(
        "run", "-q", "--rm", "--name", "signalled", name, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        rl("stop", "signalled")
        assert process.stdout.readline() == b"int\n"
        assert process.wait(PATIENCE) == 7
    rl("rmi", name)


def test_image_for_another_processor_is_run_with_a_warning(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    write_layout(tmp_path, [Layer(tar_of({"f": ""}))], {"Cmd": ["/f"]}, architecture="s390x")
    registry.push(f"oci:{tmp_path}:latest", "tests/foreign")
    name = f"{registry.host}/tests/foreign"
    done = rl("run", "-q", "--rm", "--platform", "linux/s390x", name, check=False)
    assert done.returncode == 126
    assert "the image is for linux/s390x" in done.stderr
    rl("rmi", name)
