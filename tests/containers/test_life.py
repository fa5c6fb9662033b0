"""The life of a container as a table: what each command does in each state."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from rootless.cli import _SECTIONS
from tests.support.runner import Rl
from tests.support.undefended import changed

NAME = "life"

# A container that waits to be restarted is brought there by one that fails once, and by a wait that
# does not end; "abandoned" is one whose supervisor was killed.
STATES = ("created", "running", "restarting", "exited", "abandoned")
WAITS_FOR_EVER = "from rootless.containers import restart; restart.delay = lambda *_: 86400.0"
FAILS_ONCE = "test -e /again && exec sleep 1000; touch /again; exit 137"

Answer = tuple[int, str, str]


def always(code: int, said: str) -> dict[str, Answer]:
    """Return the row of a command that does the same in each state, and leaves it."""
    return {state: (code, said, state) for state in STATES}


def unless(code: int, said: str, left: str, **others: Answer) -> dict[str, Answer]:
    """Return the row of a command of which some states want another answer."""
    return {state: others.get(state, (code, said, left or state)) for state in STATES}


NOT_RUNNING = "container life is not running"
RESTARTING = "container life is restarting, wait until it is running"
# command: for each state it may find, (exit code, what it says, the state that it leaves).
# Docker's answers, but for the exit code of a failure, which is 125 for every command of ours.
# Who waits for what does not come is left out. Paused containers are the guest's tests.
TABLE: dict[str, dict[str, Answer]] = {
    "start life": unless(0, "life\n", "running", restarting=(0, "life\n", "restarting")),
    "stop -t 0 life": unless(0, "life\n", "exited", created=(0, "life\n", "created")),
    "kill life": unless(
        125, "cannot kill container life: it is not running", "",
        running=(0, "life\n", "exited"), restarting=(0, "life\n", "exited"),
    ),
    "kill -s CHLD life": unless(
        125, "cannot kill container life: it is not running", "",
        running=(0, "life\n", "running"), restarting=(0, "life\n", "restarting"),
    ),
    "restart -t 0 life": unless(0, "life\n", "running"),
    "rm life": unless(
        0, "life\n", "gone",
        running=(125, "container life is running (stop it first", "running"),
        restarting=(125, "container life is restarting (stop it first", "restarting"),
    ),
    "rm -f -v life": unless(0, "life\n", "gone"),
    "rm -t 0 life": unless(0, "life\n", "gone"),
    "wait life": {
        "created": (0, "0\n", "created"),
        "exited": (0, "137\n", "exited"),
        "abandoned": (0, "255\n", "exited"),
    },
    "wait --condition running life": {
        "running": (0, "-1\n", "running"),
        "exited": (125, "container life does not run", "exited"),
        "abandoned": (125, "container life does not run", "exited"),
    },
    "logs life": always(0, ""),
    "logs -f life": {state: (0, "", state) for state in ("created", "exited", "abandoned")},
    "exec life true": unless(
        125, NOT_RUNNING, "", running=(0, "", "running"), restarting=(125, RESTARTING, "restarting")
    ),
    "exec -d life true": unless(
        125, NOT_RUNNING, "", running=(0, "", "running"), restarting=(125, RESTARTING, "restarting")
    ),
    "attach life": {
        state: (125, f"you cannot attach to a {which} container", state)
        for state, which in {
            "created": "stopped", "restarting": "restarting", "exited": "stopped",
            "abandoned": "stopped",
        }.items()
    },
    "top life": unless(
        125, NOT_RUNNING, "",
        running=(0, "sleep 1000", "running"), restarting=(125, RESTARTING, "restarting"),
    ),
    "healthcheck run life": always(125, "container life has no defined healthcheck"),
    "container exists life": always(0, ""),
    "inspect -f {{.State.Running}} life": unless(
        0, "false\n", "", running=(0, "true\n", "running"), restarting=(0, "true\n", "restarting")
    ),
    "inspect -f {{.State.Restarting}} life": unless(
        0, "false\n", "", restarting=(0, "true\n", "restarting")
    ),
    "ps --format {{.Names}}": unless(
        0, "", "", running=(0, "life\n", "running"), restarting=(0, "life\n", "restarting")
    ),
    "ps -a --format {{.Status}}": unless(
        0, "Exited (137) ", "",
        created=(0, "Created\n", "created"), running=(0, "Up ", "running"),
        restarting=(0, "Restarting (137) ", "restarting"), abandoned=(0, "Exited (255) ", "exited"),
    ),
    "diff life": unless(0, "", "", restarting=(0, "A /again\n", "restarting")),
    # Its overlay is served once, and about to be.
    "cp life:/etc/motd -": unless(0, "motd", "", restarting=(125, RESTARTING, "restarting")),
    "export life": unless(0, "busybox", "", restarting=(125, RESTARTING, "restarting")),
    "pause life": {
        "created": (125, NOT_RUNNING, "created"),
        "restarting": (125, RESTARTING, "restarting"),
        "exited": (125, NOT_RUNNING, "exited"),
        "abandoned": (125, NOT_RUNNING, "exited"),
    },
    "unpause life": always(125, "container life is not paused"),
    "port life": always(0, ""),
    "update --restart on-failure life": always(0, "life\n"),
    "stats --no-stream life": always(0, "CONTAINER ID"),
    "rename life other": unless(0, "", "gone"),
    "container prune -f": unless(
        0, "Deleted Containers:", "gone",
        running=(0, "Total reclaimed space: 0B\n", "running"),
        restarting=(0, "Total reclaimed space: 0B\n", "restarting"),
    ),
}  # fmt: skip
CASES = [
    (command, state, *answer) for command, row in TABLE.items() for state, answer in row.items()
]


def bring_into(rl: Rl, state: str) -> None:
    if state == "restarting":
        restarted = ("--restart", "always", "alpine", "sh", "-c", FAILS_ONCE)
        changed(rl, WAITS_FOR_EVER)("run", "-d", "--name", NAME, *restarted)
    else:
        rl("create", "--name", NAME, "alpine", "sleep", "1000")
    if state in ("running", "exited", "abandoned"):
        rl("start", NAME)
    if state == "exited":
        rl("kill", NAME)
    if state == "abandoned":
        init = rl("inspect", "-f", "{{.State.Pid}}", NAME).stdout.strip()
        status = Path(f"/proc/{init}/status").read_text()
        (parent,) = re.findall(r"^PPid:\t(\d+)$", status, re.MULTILINE)
        os.kill(int(parent), signal.SIGKILL)
    while state_of(rl) != shown(state):
        pass


def shown(state: str) -> str:
    """Return the state as Docker has it."""
    return "exited" if state == "abandoned" else state


def state_of(rl: Rl) -> str:
    """Return the state of the container."""
    found = rl("inspect", "-f", "{{.State.Status}}", NAME, check=False)
    return found.stdout.strip() or "gone"


@pytest.mark.parametrize(("command", "state", "code", "said", "left"), CASES)
def test_command_in_a_state(
    rl: Rl, command: str, state: str, code: int, said: str, left: str
) -> None:
    try:
        bring_into(rl, state)
        done = rl(*command.split(), check=False)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert said or not done.stdout
        assert state_of(rl) == shown(left)
    finally:
        rl("rm", "-f", NAME, "other")


def test_every_command_on_a_container_is_in_the_table() -> None:
    without = {"run", "create", "ls"}
    there = {command.split()[0] for command in TABLE} | {"prune", "exists"}
    assert set(_SECTIONS["container"].commands) - without <= there
