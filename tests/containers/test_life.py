"""The life of a container as a table: what each command does in each state."""

from __future__ import annotations

import pytest

from tests.support.runner import Rl

NAME = "life"

# command: for each state it may find, (exit code, what it says, the state that it leaves).
# Docker's answers, but for the exit code of a failure, which is 125 for every command of ours.
TABLE: dict[str, dict[str, tuple[int, str, str]]] = {
    "start life": {
        "created": (0, "life\n", "running"),
        "running": (0, "life\n", "running"),
        "exited": (0, "life\n", "running"),
    },
    "stop -t 0 life": {
        "created": (0, "life\n", "created"),
        "running": (0, "life\n", "exited"),
        "exited": (0, "life\n", "exited"),
    },
    "kill life": {
        "created": (125, "cannot kill container life: it is not running", "created"),
        "running": (0, "life\n", "exited"),
        "exited": (125, "cannot kill container life: it is not running", "exited"),
    },
    "kill -s CHLD life": {
        "running": (0, "life\n", "running"),
    },
    "restart -t 0 life": {
        "created": (0, "life\n", "running"),
        "running": (0, "life\n", "running"),
        "exited": (0, "life\n", "running"),
    },
    "rm life": {
        "created": (0, "life\n", ""),
        "running": (125, "container life is running", "running"),
        "exited": (0, "life\n", ""),
    },
    "rm -f -v life": {
        "created": (0, "life\n", ""),
        "running": (0, "life\n", ""),
        "exited": (0, "life\n", ""),
    },
    "wait life": {
        "created": (0, "0\n", "created"),
        "exited": (0, "137\n", "exited"),
    },
    "logs life": {
        "created": (0, "", "created"),
        "running": (0, "", "running"),
        "exited": (0, "", "exited"),
    },
    "logs -f life": {
        "created": (0, "", "created"),
        "exited": (0, "", "exited"),
    },
    "exec life true": {
        "created": (125, "container life is not running", "created"),
        "running": (0, "", "running"),
        "exited": (125, "container life is not running", "exited"),
    },
    "attach life": {
        "created": (125, "you cannot attach to a stopped container", "created"),
        "exited": (125, "you cannot attach to a stopped container", "exited"),
    },
    "top life": {
        "created": (125, "container life is not running", "created"),
        "running": (0, "sleep 1000", "running"),
        "exited": (125, "container life is not running", "exited"),
    },
    "exec -d life true": {
        "created": (125, "container life is not running", "created"),
        "running": (0, "", "running"),
        "exited": (125, "container life is not running", "exited"),
    },
    "wait --condition running life": {
        "running": (0, "-1\n", "running"),
        "exited": (125, "container life does not run", "exited"),
    },
    "healthcheck run life": {
        "created": (125, "container life has no defined healthcheck", "created"),
        "running": (125, "container life has no defined healthcheck", "running"),
        "exited": (125, "container life has no defined healthcheck", "exited"),
    },
    "container exists life": {
        "created": (0, "", "created"),
        "running": (0, "", "running"),
        "exited": (0, "", "exited"),
    },
    "inspect -f {{.State.Running}} life": {
        "created": (0, "false\n", "created"),
        "running": (0, "true\n", "running"),
        "exited": (0, "false\n", "exited"),
    },
    "ps -q --filter name=life": {
        "created": (0, "", "created"),
        "exited": (0, "", "exited"),
    },
    "ps --format {{.Status}}": {
        "running": (0, "Up ", "running"),
    },
    "ps -a --format {{.Status}}": {
        "created": (0, "Created\n", "created"),
        "running": (0, "Up ", "running"),
        "exited": (0, "Exited (137) ", "exited"),
    },
    "diff life": {
        "created": (0, "", "created"),
        "running": (0, "", "running"),
        "exited": (0, "", "exited"),
    },
    "cp life:/etc/motd -": {
        "created": (0, "motd", "created"),
        "running": (0, "motd", "running"),
        "exited": (0, "motd", "exited"),
    },
    "pause life": {
        "created": (125, "container life is not running", "created"),
        "exited": (125, "container life is not running", "exited"),
    },
    "unpause life": {
        "created": (125, "container life is not paused", "created"),
        "running": (125, "container life is not paused", "running"),
        "exited": (125, "container life is not paused", "exited"),
    },
    "port life": {
        "created": (0, "", "created"),
        "running": (0, "", "running"),
        "exited": (0, "", "exited"),
    },
    "update --restart on-failure life": {
        "created": (0, "life\n", "created"),
        "running": (0, "life\n", "running"),
        "exited": (0, "life\n", "exited"),
    },
    "stats --no-stream life": {
        "created": (0, "CONTAINER ID", "created"),
        "running": (0, "CONTAINER ID", "running"),
        "exited": (0, "CONTAINER ID", "exited"),
    },
    "rename life other": {
        "created": (0, "", ""),
        "running": (0, "", ""),
        "exited": (0, "", ""),
    },
    "container prune -f": {
        "created": (0, "Deleted Containers:", ""),
        "running": (0, "Total reclaimed space: 0B\n", "running"),
        "exited": (0, "Deleted Containers:", ""),
    },
}
CASES = [
    (command, state, *answer) for command, row in TABLE.items() for state, answer in row.items()
]


def bring_into(rl: Rl, state: str) -> None:
    rl("create", "--name", NAME, "alpine", "sleep", "1000")
    if state != "created":
        rl("start", NAME)
    if state == "exited":
        rl("kill", NAME)


def state_of(rl: Rl) -> str:
    """Return the state of the container, "" if there is none of that name."""
    found = rl("inspect", "-f", "{{.State.Status}}", NAME, check=False)
    return found.stdout.strip()


@pytest.mark.parametrize(("command", "state", "code", "said", "left"), CASES)
def test_command_in_a_state(
    rl: Rl, command: str, state: str, code: int, said: str, left: str
) -> None:
    bring_into(rl, state)
    try:
        assert state_of(rl) == state
        done = rl(*command.split(), check=False)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert state_of(rl) == left
    finally:
        rl("rm", "-f", NAME, "other")
