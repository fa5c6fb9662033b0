"""Restart policies: what is decided, and that a supervisor does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from rootless.containers.restart import Policy, delay
from rootless.errors import RlError
from tests.support import leaks
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "again"),
    [
        ("no", 1, 0, False),
        ("on-failure", 0, 0, False),
        ("on-failure", 1, 1000, True),
        ("on-failure:2", 1, 1, True),
        ("on-failure:2", 1, 2, False),
        ("always", 0, 5, True),
        ("unless-stopped", 137, 5, True),
    ],
)
def test_policy_decides_by_exit_code_and_count(
    policy: str, code: int, restarts: int, again: bool
) -> None:
    assert Policy.parse(policy).again(code, restarts) is again


@pytest.mark.parametrize("text", ["", "sometimes", "always:3", "on-failure:x", "on-failure:-1"])
def test_unknown_policy_is_an_error(text: str) -> None:
    with pytest.raises(RlError, match="invalid restart policy"):
        Policy.parse(text)


@pytest.mark.parametrize(
    ("policy", "stopped", "starts"),
    [
        ("always", False, True), ("always", True, True), ("unless-stopped", False, True),
        ("unless-stopped", True, False), ("on-failure", False, False), ("no", False, False),
    ],
)  # fmt: skip
def test_policy_decides_what_runs_after_a_reboot(policy: str, stopped: bool, starts: bool) -> None:
    assert Policy.parse(policy).on_boot(stopped=stopped) is starts


def test_waiting_doubles_up_to_a_minute_and_begins_anew_after_a_long_run() -> None:
    waits = [delay(0, 0)]
    for _ in range(12):
        waits.append(delay(waits[-1], 1))
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-1] == 60
    assert delay(60, 11) == 0.1


def test_failing_container_is_started_again_as_often_as_asked(rl: Rl) -> None:
    script = "echo run; exit 3"
    rl("run", "-d", "--name", "failing", "--restart", "on-failure:2", "alpine", "sh", "-c", script)
    with rl.start("logs", "-f", "failing", stdout=subprocess.PIPE) as follow:
        out, _ = follow.communicate(timeout=PATIENCE)
    assert out == b"run\n" * 3
    form = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}"
    assert rl("inspect", "-f", form, "failing").stdout == "exited 3 2\n"
    rl("rm", "failing")


def test_stopped_container_is_not_started_again(rl: Rl) -> None:
    script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    rl("run", "-d", "--name", "kept", "--restart", "always", "alpine", "sh", "-c", script)
    with rl.start("logs", "-f", "kept", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == b"up\n"
        # A death that nobody asked for.
        state = rl.root / "containers" / rl("ps", "-q", "--no-trunc").stdout.strip() / "state.json"
        os.kill(json.loads(state.read_bytes())["init"]["pid"], signal.SIGKILL)
        assert follow.stdout.readline() == b"up\n"
        rl("stop", "kept")
        assert follow.stdout.read() == b""
    form = "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}"
    assert rl("inspect", "-f", form, "kept").stdout == "exited always\n"
    rl("rm", "kept")


def test_container_that_waits_for_its_restart_can_be_stopped_and_removed(rl: Rl) -> None:
    arguments = ("--restart", "always", "alpine", "sh", "-c", "echo run")
    for name, ending in (("waiting1", ("stop",)), ("waiting2", ("rm", "-f"))):
        rl("run", "-d", "--name", name, *arguments)
        with rl.start("logs", "-f", name, stdout=subprocess.PIPE) as follow:
            assert follow.stdout is not None
            # The fifth wait is long enough to come into it.
            for _ in range(5):
                assert follow.stdout.readline() == b"run\n"
            assert name in rl("ps", "--format", "{{.Names}}").stdout.split()
            rl(*ending, name)
    assert rl("inspect", "-f", "{{.State.Status}}", "waiting1").stdout == "exited\n"
    rl("rm", "waiting1")


def test_restart_and_removal_contradict_each_other(rl: Rl) -> None:
    done = rl("run", "--rm", "--restart", "always", "alpine", "true", check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "rl: --restart and --rm contradict each other\n",
    )


def test_what_should_run_after_a_reboot_is_started_by_one_command(fresh_rl: Rl) -> None:
    rl = fresh_rl
    policies = ("no", "on-failure", "always", "unless-stopped")
    for policy in policies:
        for end in ("stopped", "cut"):
            options = ("--name", f"{policy}-{end}", "--restart", policy)
            rl("run", "-q", "-d", *options, "alpine", "sleep", "1000")
    ids = rl("ps", "-q", "--no-trunc", "--filter", "name=-cut").stdout.split()
    rl("stop", "-t", "0", *(f"{policy}-stopped" for policy in policies))
    for container_id in ids:
        directory = rl.root / "containers" / container_id
        os.kill(json.loads((directory / "state.json").read_bytes())["supervisor"]["pid"], 9)
        assert leaks.wait_for_none(directory) == []
    boot = rl("start", "--all", "--filter", "should-start-on-boot=true")
    assert boot.stdout.split() == ["always-stopped", "always-cut", "unless-stopped-cut"]
    assert rl("start", "--filter", "restart-policy=no").stdout.split() == ["no-stopped", "no-cut"]
    shown = rl("ps", "--filter", "restart-policy=always", "--format", "{{.Names}}").stdout.split()
    assert sorted(shown) == ["always-cut", "always-stopped"]
    assert rl("start", "--all", "no-cut", check=False).returncode == 125
    assert "use --all" in rl("start", check=False).stderr
    rl("rm", "-f", *rl("ps", "-aq").stdout.split())


def test_supervisor_that_the_machine_ends_leaves_a_container_that_starts_on_boot(rl: Rl) -> None:
    script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
    options = ("--name", "down", "--restart", "unless-stopped", "alpine", "sh", "-c", script)
    container_id = rl("run", "-d", *options).stdout
    # Before its trap is set, PID 1 does not hear a signal.
    with rl.start("logs", "-f", "down", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert follow.stdout.readline() == b"up\n"
        follow.kill()
    state = rl.root / "containers" / container_id.strip() / "state.json"
    os.kill(json.loads(state.read_bytes())["supervisor"]["pid"], signal.SIGTERM)
    rl("wait", "down")
    query = ("ps", "-aq", "--filter", "name=down", "--filter", "should-start-on-boot=true")
    assert rl(*query).stdout != ""
    rl("start", "down")
    rl("stop", "-t", "0", "down")
    assert rl(*query).stdout == ""
    rl("rm", "down")


def test_policy_can_be_changed_while_a_container_runs(rl: Rl) -> None:
    script = "echo run; read x; exit 3"
    rl("run", "-d", "-i", "--name", "changed", "alpine", "sh", "-c", script)
    rl("update", "--restart", "on-failure:1", "changed")
    form = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert rl("inspect", "-f", form, "changed").stdout == "on-failure 1\n"
    rl("attach", "changed", input="\n", check=False)
    rl("wait", "--condition", "running", "changed")
    rl("update", "--restart", "no", "changed")
    with rl.start("logs", "-f", "changed", stdout=subprocess.PIPE) as follow:
        assert follow.stdout is not None
        assert [follow.stdout.readline() for _ in range(2)] == [b"run\n"] * 2
        rl("attach", "changed", input="\n", check=False)
        assert follow.stdout.read() == b""
    assert rl("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "changed").stdout == (
        "exited 1\n"
    )
    assert "invalid restart policy" in rl("update", "--restart", "x", "changed", check=False).stderr
    rl("rm", "changed")
