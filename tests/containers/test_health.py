"""Health checks: what they mean, and what a hostile one cannot do."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rootless.containers import health, probe
from rootless.containers.health import Check, Health
from rootless.containers.monitor import Monitor
from rootless.containers.state import State
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.kernel.polling import wait
from tests.support import images, leaks
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import wait_until

SECOND = 10**9
IMAGE = {"Test": ["CMD", "check"], "Interval": 5 * SECOND, "Retries": 7}


@pytest.mark.parametrize(
    ("image", "asked", "found"),
    [
        (None, Health(), None),
        (IMAGE, Health(), IMAGE),
        (IMAGE, Health(disabled=True), {"Test": ["NONE"]}),
        (IMAGE, Health(cmd="none"), {"Test": ["NONE"]}),
        (IMAGE, Health(cmd="mine"), IMAGE | {"Test": ["CMD-SHELL", "mine"]}),
        (IMAGE, Health(interval=SECOND, retries=1), IMAGE | {"Interval": SECOND, "Retries": 1}),
        # A check that nobody asked for cannot keep the machine busy.
        (IMAGE | {"Interval": 1}, Health(), IMAGE | {"Interval": SECOND}),
    ],
)  # fmt: skip
def test_options_go_before_what_the_image_says(
    image: dict[str, Any] | None, asked: Health, found: dict[str, Any] | None
) -> None:
    assert health.merged(image, asked) == found


@pytest.mark.parametrize(
    "image",
    [
        {"Test": "x"}, {"Test": [1]}, {"Test": ["CMD"]}, {"Test": ["SHELL", "x"]},
        {"Interval": -1}, {"Interval": "1s"}, {"Retries": True}, {"Timeout": 1 << 70},
    ],
)  # fmt: skip
def test_nonsense_of_an_image_is_an_error_that_names_the_way_out(image: dict[str, Any]) -> None:
    with pytest.raises(RlError, match="--no-healthcheck"):
        health.merged(image, Health())
    assert health.merged(image, Health(disabled=True)) == {"Test": ["NONE"]}


def results(check: Check, *codes: tuple[float, int]) -> list[tuple[str, int]]:
    value, found = health.beginning(), []
    for since, code in codes:
        value = health.after(value, {"ExitCode": code}, check, since)
        found.append((value["Status"], value["FailingStreak"]))
    assert len(value["Log"]) <= 5
    return found


def test_failures_in_a_row_make_unhealthy_and_one_success_healthy() -> None:
    check = Check.of({"Test": ["CMD", "x"], "Retries": 2})
    assert check is not None
    assert results(check, (1, 1), (2, 1), (3, -1), (4, 0), (5, 1), (6, 0)) == [
        ("starting", 1), ("unhealthy", 2), ("unhealthy", 3), ("healthy", 0), ("healthy", 1),
        ("healthy", 0),
    ]  # fmt: skip


def test_failures_of_the_start_period_do_not_count_and_a_success_ends_it() -> None:
    check = Check.of({"Test": ["CMD", "x"], "Retries": 1, "StartPeriod": 10 * SECOND})
    assert check is not None
    assert results(check, (1, 1), (9, 1)) == [("starting", 0)] * 2
    assert results(check, (1, 1), (11, 1)) == [("starting", 0), ("unhealthy", 1)]
    assert results(check, (1, 0), (2, 1)) == [("healthy", 0), ("unhealthy", 1)]
    assert check.pause("starting", 3) == 5
    assert check.pause("healthy", 3) == check.pause("starting", 11) == 30


def made_up(directory: Path) -> Container:
    """Return a container that nothing can be done with."""
    path = directory / "containers" / "made-up"
    path.mkdir(parents=True)
    return Container("made-up", path, {}, State(name="x", created_at=""))


def test_check_that_we_cannot_carry_out_has_failed(tmp_path: Path) -> None:
    check = Check.of({"Test": ["CMD", "true"]})
    assert check is not None
    result = probe.run(made_up(tmp_path), check)
    assert result["ExitCode"] != 0
    assert result["Output"]


def test_supervisor_survives_a_health_that_it_cannot_read(tmp_path: Path) -> None:
    container = made_up(tmp_path)
    (container.path / "health.json").write_text("{}")
    monitor = Monitor(container, Check(["true"], 0, 1, 0, 0, 1))
    monitor.advance(set())
    monitor.advance(wait(monitor.interests()))
    # It waits for the next one.
    assert monitor.seconds() is not None
    assert not monitor.interests()


@contextmanager
def checked(rl: Rl, name: str, command: str, *options: str) -> Iterator[str]:
    """Run a container whose health is checked often."""
    often = ("--health-cmd", command, "--health-interval", "100ms", *options)
    done = rl("run", "-d", "--name", name, *often, "alpine", "sleep", "100000")
    try:
        yield done.stdout.strip()
    finally:
        rl("rm", "-f", name)


def health_of(rl: Rl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rl("inspect", "-f", "{{json .State.Health}}", name).stdout)
    return found


def test_health_is_seen_wherever_docker_shows_it(rl: Rl) -> None:
    with checked(rl, "seen", "echo looked; test -e /ok", "--health-retries", "2"):
        assert rl("wait", "--condition", "unhealthy", "seen").stdout == "-1\n"
        found = health_of(rl, "seen")
        assert (found["Status"], found["FailingStreak"] >= 2) == ("unhealthy", True)
        last = found["Log"][-1]
        assert (last["ExitCode"], last["Output"]) == (1, "looked\n")
        assert last["Start"] < last["End"]
        assert rl("ps", "-q", "--filter", "health=healthy").stdout == ""
        rl("exec", "seen", "touch", "/ok")
        rl("wait", "--condition=healthy", "seen")
        form = "{{.Names}} {{.Status}}"
        shown = rl("ps", "--filter", "health=healthy", "--format", form).stdout
        assert shown.startswith("seen Up ")
        assert shown.endswith(" (healthy)\n")
        assert rl("inspect", "-f", "{{.Config.Healthcheck.Test}}", "seen").stdout == (
            "[CMD-SHELL echo looked; test -e /ok]\n"
        )
        events = ("events", "--since", "0", "--until", "0s", "-f", "event=health_status")
        told = rl(*events, "-f", "container=seen", "--format", "{{.Action}}").stdout.splitlines()
        assert told[-2:] == ["health_status: unhealthy", "health_status: healthy"]
        # At most five results are kept.
        assert len(health_of(rl, "seen")["Log"]) <= 5


def test_container_begins_anew_when_it_is_started_again(rl: Rl) -> None:
    with checked(rl, "anew", "false", "--health-retries", "1"):
        rl("wait", "--condition", "unhealthy", "anew")
        rl("stop", "-t", "0", "anew")
        assert "unhealthy" not in rl("ps", "-a", "--format", "{{.Status}}").stdout
        assert "does not run" in rl("wait", "--condition=healthy", "anew", check=False).stderr
        rl("start", "anew")
        rl("wait", "--condition", "unhealthy", "anew")


def test_check_of_the_image_is_carried_out_unless_it_is_left_out(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    check = {"Test": ["CMD", "true"], "Interval": 1}
    images.busybox(tmp_path, {}, {"Healthcheck": check, "Cmd": ["/bin/sleep", "100000"]})
    registry.push(f"oci:{tmp_path}:latest", "tests/checked")
    name = f"{registry.host}/tests/checked"
    rl("run", "-q", "-d", "--name", "with", name)
    rl("run", "-d", "--name", "without", "--no-healthcheck", name)
    rl("wait", "--condition", "healthy", "with")
    assert "Health" not in json.loads(rl("inspect", "without").stdout)[0]["State"]
    assert "no defined healthcheck" in rl("healthcheck", "run", "without", check=False).stderr
    rl("rm", "-f", "with", "without")
    rl("rmi", name)


def test_check_can_be_run_by_hand(rl: Rl) -> None:
    rare = ("--health-interval", "1h", "--health-retries", "1")
    with checked(rl, "hand", "test -e /ok", *rare):
        done = rl("healthcheck", "run", "hand", check=False)
        assert (done.returncode, done.stdout) == (1, "unhealthy\n")
        rl("exec", "hand", "touch", "/ok")
        assert rl("healthcheck", "run", "hand").stdout == ""
        assert health_of(rl, "hand")["Status"] == "healthy"


def test_check_that_takes_too_long_is_killed_with_all_that_it_started(rl: Rl) -> None:
    # Among others a daemon: its parent is gone, its session another one.
    command = "sleep 7777 & (setsid sleep 7777 &); trap '' TERM HUP; sleep 7777"
    rare = ("--health-interval", "1h", "--health-timeout", "700ms", "--health-retries", "1")
    with checked(rl, "slow", command, *rare):
        before = rl("top", "slow").stdout
        assert rl("healthcheck", "run", "slow", check=False).stdout == "unhealthy\n"
        (result,) = health_of(rl, "slow")["Log"]
        assert result["ExitCode"] == -1
        assert result["Output"] == "Health check exceeded timeout (0.7s)"
        # No zombie either, though PID 1 waits for none.
        assert rl("top", "slow").stdout.count("\n") == before.count("\n")


def test_output_is_kept_up_to_a_limit_and_delays_nobody(rl: Rl) -> None:
    command = "head -c 30000000 /dev/urandom; printf '\\033]0;title\\a' >&2; exit 3"
    with checked(rl, "loud", command, "--health-interval", "1h", "--health-retries", "1"):
        assert rl("healthcheck", "run", "loud", check=False).stdout == "unhealthy\n"
        (result,) = health_of(rl, "loud")["Log"]
        assert result["ExitCode"] == 3
        assert 1000 < len(result["Output"]) <= 4096


def test_command_that_is_not_there_is_a_failure(rl: Rl) -> None:
    rl("run", "-d", "--name", "gone", "--health-cmd", "x", "alpine", "sleep", "1000")
    rl("exec", "gone", "rm", "/bin/sh")
    assert rl("healthcheck", "run", "gone", check=False).returncode == 1
    assert "cannot execute" in health_of(rl, "gone")["Log"][0]["Output"]
    rl("rm", "-f", "gone")


def test_check_ends_with_its_container(rl: Rl) -> None:
    with checked(rl, "ending", "sleep 8888") as container_id:
        wait_until(lambda: "8888" in rl("top", "ending").stdout)
        rl("stop", "-t", "0", "ending")
        assert leaks.wait_for_none(rl.root / "containers" / container_id) == []


def test_process_that_watches_a_check_is_closed_to_the_container(rl: Rl) -> None:
    with checked(rl, "closed", "sleep 8888"):
        wait_until(lambda: "8888" in rl("top", "closed").stdout)
        script = "for p in /proc/[0-9]*; do readlink $p/exe; done; grep -l Name:.rl /proc/*/status"
        assert "python" not in rl("exec", "closed", "sh", "-c", script, check=False).stdout
        # It is there: only its files are not to be had.
        names = rl("exec", "closed", "sh", "-c", "cat /proc/[0-9]*/comm").stdout.split()
        assert any("rl" in name or "python" in name for name in names)


def test_check_ends_with_its_supervisor(rl: Rl) -> None:
    with checked(rl, "orphaned", "sleep 8888") as container_id:
        wait_until(lambda: "8888" in rl("top", "orphaned").stdout)
        directory = rl.root / "containers" / container_id
        state = json.loads((directory / "state.json").read_bytes())
        os.kill(state["supervisor"]["pid"], signal.SIGKILL)
        assert leaks.wait_for_none(directory) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--no-healthcheck", "--health-cmd", "x"), "conflicts with --health-"),
        (("--health-cmd", "x", "--health-interval", "soon"), "invalid duration 'soon'"),
        (("--health-cmd", "x", "--health-interval", "1us"), "cannot be less than 1ms"),
    ],
)
def test_mistakes_are_told(rl: Rl, options: tuple[str, ...], said: str) -> None:
    done = rl("create", *options, "alpine", "true", check=False)
    assert done.returncode == 125
    assert said in done.stderr


def test_waiting_for_centuries_ends_no_supervisor(rl: Rl) -> None:
    longest = "1200000h"
    options = [
        option
        for name in ("interval", "timeout", "start-period", "start-interval")
        for option in (f"--health-{name}", longest)
    ]
    ends = ("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done")
    rl("run", "-d", "--name", "centuries", "--health-cmd", "true", *options, "alpine", *ends)
    wait_until(lambda: "ready" in rl("logs", "centuries").stdout)
    assert health_of(rl, "centuries")["Status"] == "starting"
    rl("stop", "-t", "3000000", "centuries")
    assert rl("inspect", "-f", "{{.State.ExitCode}}", "centuries").stdout == "3\n"
    rl("rm", "centuries")
