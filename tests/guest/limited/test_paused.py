"""What each command does with a container that is paused: the rest of the table of test_life."""

from __future__ import annotations

import pytest

from tests.guest.machine import IMAGE, rl, running, wait_until

# command: (exit code, what it says, the state that it leaves), as Docker has it.
TABLE = {
    "start ice": (125, "cannot start a paused container, try unpause instead", "paused"),
    "start -a ice": (125, "cannot start a paused container, try unpause instead", "paused"),
    "kill -s CHLD ice": (0, "ice\n", "paused"),
    "rm ice": (125, "container ice is paused and must be unpaused first", "paused"),
    "logs ice": (0, "begun\n", "paused"),
    "exec ice true": (125, "container ice is paused, unpause it before exec", "paused"),
    "exec -d ice true": (125, "container ice is paused, unpause it before exec", "paused"),
    "attach ice": (125, "you cannot attach to a paused container, unpause it first", "paused"),
    "healthcheck run ice": (125, "container ice has no defined healthcheck", "paused"),
    "container exists ice": (0, "", "paused"),
    "inspect -f {{.State.Running}}{{.State.Paused}} ice": (0, "truetrue\n", "paused"),
    "ps --format {{.Names}}": (0, "ice\n", "paused"),
    "ps -a --format {{.Status}}": (0, "(Paused)\n", "paused"),
    "diff ice": (0, "", "paused"),
    "cp ice:/etc/passwd -": (0, "root:", "paused"),
    "export -o /tmp/ice.tar ice": (0, "", "paused"),
    "pause ice": (125, "container ice is already paused", "paused"),
    "port ice": (0, "", "paused"),
    "update --restart on-failure ice": (0, "ice\n", "paused"),
    "stats --no-stream ice": (0, "ice", "paused"),
    "wait --condition running ice": (0, "-1\n", "paused"),
    "container prune -f": (0, "Total reclaimed space: 0B\n", "paused"),
}
ENDS = {
    "unpause ice": (0, "ice\n", "running"),
    "stop -t 0 ice": (0, "ice\n", "exited"),
    "kill ice": (0, "ice\n", "exited"),
    "restart -t 0 ice": (0, "ice\n", "running"),
    "rename ice other": (0, "", "gone"),
    "rm -f -v ice": (0, "ice\n", "gone"),
    "rm -t 0 ice": (0, "ice\n", "gone"),
}
SLEEP = (IMAGE, "sh", "-c", "echo begun; exec sleep 1000")


def state() -> str:
    found = rl("inspect", "-f", "{{.State.Status}}", "ice", check=False)
    return found.stdout.strip() or "gone"


def assert_answer(command: str, code: int, said: str, left: str) -> None:
    done = rl(*command.split(), check=False)
    assert done.returncode == code, (command, done.stderr)
    assert said in done.stdout + done.stderr, command
    assert said or not done.stdout, command
    assert state() == left, command


def test_command_leaves_a_paused_container_as_it_is() -> None:
    with running("ice", *SLEEP):
        wait_until(lambda: rl("logs", "ice").stdout == "begun\n")
        rl("pause", "ice")
        for command, answer in TABLE.items():
            assert_answer(command, *answer)


@pytest.mark.parametrize("command", ENDS)
def test_command_ends_the_pause_of_a_container(command: str) -> None:
    with running("ice", *SLEEP):
        try:
            rl("pause", "ice")
            assert_answer(command, *ENDS[command])
        finally:
            rl("rm", "-f", "other")
