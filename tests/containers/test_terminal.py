"""A container's terminal, driven as a person drives it."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

PROMPT = "READY> "


@contextmanager
def shell(rl: Rl, *options: str) -> Iterator[pexpect.spawn[str]]:
    """Start an interactive shell in a container, in a terminal of 101 columns and 33 rows."""
    name = f"shell-{os.urandom(4).hex()}"
    command = [*rl.command, "run", "--rm", "-it", "--name", name]
    command += ["-e", f"PS1={PROMPT}", *options, "alpine", "sh"]
    terminal: pexpect.spawn[str] = pexpect.spawn(
        command[0], command[1:], env=os.environ | rl.environment, encoding="utf-8",
        timeout=PATIENCE, dimensions=(33, 101), echo=True,
    )  # fmt: skip
    try:
        terminal.expect(PROMPT)
        yield terminal
    finally:
        terminal.close(force=True)
        rl("rm", "-f", name)


def answer(terminal: pexpect.spawn[str], command: str) -> str:
    """Return what a command prints, without its echo."""
    terminal.sendline(command)
    terminal.expect(PROMPT)
    assert terminal.before is not None
    return terminal.before.split("\r\n", 1)[1].replace("\x1b[6n", "").rstrip("\r\n")


def test_terminal_is_a_real_one_with_the_size_of_ours(rl: Rl) -> None:
    with shell(rl) as terminal:
        assert answer(terminal, "stty size; tty; echo $TERM; test -c /dev/console && echo yes") == (
            "33 101\r\n/dev/pts/0\r\nxterm\r\nyes"
        )


def test_window_size_follows_ours(rl: Rl) -> None:
    with shell(rl) as terminal:
        script = 'trap "stty size" WINCH; echo waiting; while :; do sleep 0.1; done'
        terminal.sendline(f"sh -c {shlex.quote(script)}")
        terminal.expect("waiting\r\n")
        terminal.setwinsize(40, 120)
        terminal.expect_exact("40 120")


def test_interrupt_key_reaches_the_command_and_not_us(rl: Rl) -> None:
    with shell(rl) as terminal:
        terminal.sendline("sh -c 'echo sleeping; exec sleep 1000'")
        terminal.expect("sleeping\r\n")
        terminal.sendintr()
        terminal.expect(PROMPT)
        assert answer(terminal, "echo alive") == "alive"


def test_exit_code_comes_through_and_the_terminal_is_as_before(rl: Rl) -> None:
    command = shlex.join([*rl.command, "run", "--rm", "-it", "alpine", "sh", "-c", "exit 5"])
    script = (
        f'before=$(stty -g); {command}; echo "code $?"; [ "$(stty -g)" = "$before" ] && echo same'
    )
    said = pexpect.run(
        f"sh -c {shlex.quote(script)}",
        env=os.environ | rl.environment,
        encoding="utf-8",
        timeout=PATIENCE,
    )
    assert str(said).split("\r\n")[-3:-1] == ["code 5", "same"]


def test_user_of_the_container_owns_its_terminal(rl: Rl) -> None:
    with shell(rl, "-u", "1000") as terminal:
        assert answer(terminal, "echo works > $(tty); stat -c %u $(tty)") == "works\r\n1000"


def test_terminal_is_refused_for_input_that_is_none(rl: Rl) -> None:
    done = rl("run", "--rm", "-it", "alpine", "sh", check=False, input="exit\n")
    assert (done.returncode, done.stderr) == (
        125,
        "rl: the input device is not a terminal (leave out -t)\n",
    )


@contextmanager
def named(rl: Rl) -> Iterator[str]:
    name = f"kept-{os.urandom(4).hex()}"
    try:
        yield name
    finally:
        rl("rm", "-f", name)


def spawn(rl: Rl, *arguments: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        rl.command[0], list(arguments), env=os.environ | rl.environment, encoding="utf-8",
        timeout=PATIENCE,
    )  # fmt: skip


def end_with_terminal(terminal: pexpect.spawn[str]) -> int | None:
    vars(terminal)["ptyproc"].fileobj.close()
    terminal.wait()
    return -terminal.signalstatus if terminal.signalstatus else terminal.exitstatus


@pytest.mark.parametrize("how", ["hung up", "signal", "kill"])
def test_shell_is_found_again_after_its_terminal_is_gone(rl: Rl, how: str) -> None:
    with named(rl) as name:
        first = spawn(rl, "run", "-it", "--name", name, "-e", f"PS1={PROMPT}", "alpine", "sh")
        first.expect(PROMPT)
        answer(first, "mine=yes")
        if how == "signal":
            first.kill(signal.SIGHUP)
            first.expect(pexpect.EOF)
        if how == "kill":
            first.kill(signal.SIGKILL)
        assert end_with_terminal(first) == (-9 if how == "kill" else 129)
        assert rl("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"
        again = spawn(rl, "attach", name)
        again.sendline("echo found $mine; exit 6")
        again.expect_exact("found yes\r\n")
        again.expect(pexpect.EOF)
        again.close()
        assert again.exitstatus == 6


def test_command_nobody_types_to_goes_on_after_our_terminal_is_gone(rl: Rl) -> None:
    with named(rl) as name:
        first = spawn(rl, "run", "-t", "--name", name, "alpine", "sh", "-c", "echo up; sleep 1000")
        first.expect("up")
        assert end_with_terminal(first) == 129
        again = spawn(rl, "attach", name)
        again.setwinsize(40, 120)
        size = ("exec", name, "sh", "-c", "stty size </dev/console")
        wait_until(lambda: rl(*size).stdout == "40 120\n")
        assert end_with_terminal(again) == 129
        assert rl("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"


def test_command_that_prints_goes_on_after_its_terminal_is_gone(rl: Rl) -> None:
    master, slave = os.openpty()
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done"
    with named(rl) as name:
        command = ("run", "--name", name, "-it", "alpine", "sh", "-c", script)
        # No SIGHUP: the terminal is nobody's controlling one.
        with rl.start(*command, stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            assert os.read(master, 1)
            os.close(master)
            assert process.wait(PATIENCE) == 129
        assert rl("inspect", "-f", "{{.State.Status}}", name).stdout == "running\n"
        before = rl("logs", "--tail", "1", name).stdout
        wait_until(lambda: rl("logs", "--tail", "1", name).stdout != before)
