"""`rl exec`: one more process in a container that runs, as confined as the others."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pexpect
import pytest

from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

PROMPT = "READY> "


@pytest.fixture(scope="module")
def service(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs and does nothing."""
    rl("run", "-d", "--name", "entered", "-e", "A=1", "-e", "B=1", "alpine", "sleep", "100000")
    yield "entered"
    rl("rm", "-f", "entered")


def out(rl: Rl, *arguments: str) -> str:
    return rl("exec", *arguments).stdout


def test_command_shares_all_namespaces_with_pid_1(rl: Rl, service: str) -> None:
    for name in ("user", "mnt", "pid", "uts", "ipc", "cgroup", "net"):
        script = f"readlink /proc/1/ns/{name}; readlink /proc/self/ns/{name}"
        one, own = out(rl, service, "sh", "-c", script).split()
        assert one == own


def test_streams_are_kept_apart_and_input_comes_on_demand(rl: Rl, service: str) -> None:
    done = rl("exec", service, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert rl("exec", "-i", service, "cat", input="words\n").stdout == "words\n"
    assert rl("exec", service, "cat", input="words\n").stdout == ""


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-program"], 127, "executable file not found in $PATH"),
        (["/etc/motd"], 126, "Permission denied"),
    ],
)
def test_exit_codes_are_dockers(
    rl: Rl, service: str, command: list[str], code: int, said: str
) -> None:
    done = rl("exec", service, *command, check=False)
    assert done.returncode == code
    assert said in done.stderr


def test_environment_user_and_directory_can_be_chosen(rl: Rl, service: str) -> None:
    script = "echo $A $B; id -u; id -g; pwd"
    found = out(
        rl, "-e", "B=2", "-u", "1000:1001", "-w", "/etc", service, "sh", "-c", script
    ).split("\n")  # fmt: skip
    assert found[:4] == ["1 2", "1000", "1001", "/etc"]


def test_capabilities_and_keyring_are_those_of_pid_1(rl: Rl, service: str) -> None:
    fields = "grep -h -E 'Cap|NoNewPrivs|Seccomp:' /proc/{}/status"
    assert out(rl, service, "sh", "-c", fields.format("self")) == out(
        rl, service, "sh", "-c", fields.format("1")
    )
    script = "grep CapEff /proc/self/status"
    assert out(rl, "-u", "1000", service, "sh", "-c", script).split() == ["CapEff:", "0" * 16]
    assert out(rl, "--privileged", service, "sh", "-c", script).split()[1].endswith("1ffffffffff")


def test_no_new_privileges_holds_for_what_is_executed_later(rl: Rl) -> None:
    rl("run", "-d", "--name", "nnp", "--security-opt", "no-new-privileges", "alpine", "sleep", "99")
    assert "NoNewPrivs:\t1" in out(rl, "nnp", "cat", "/proc/self/status")
    rl("rm", "-f", "nnp")


def test_no_descriptor_of_ours_leaks_in(rl: Rl, service: str) -> None:
    found = out(rl, service, "sh", "-c", "ls /proc/self/fd").split()
    # The fourth is that of ls itself.
    assert found == ["0", "1", "2", "3"]


def test_directory_of_the_host_is_no_working_directory(rl: Rl, service: str) -> None:
    for number in range(3, 30):
        for path in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../.."):
            done = rl("exec", "-w", path, service, "pwd", check=False)
            assert done.returncode == 126
            assert f"cannot use {path} as the working directory" in done.stderr


def test_terminal_is_a_real_one_with_the_size_of_ours(rl: Rl, service: str) -> None:
    terminal: pexpect.spawn[str] = pexpect.spawn(
        rl.command[0], ["exec", "-it", "-e", f"PS1={PROMPT}", service, "sh"],
        env=os.environ | rl.environment, encoding="utf-8", timeout=PATIENCE, dimensions=(33, 101),
    )  # fmt: skip
    terminal.expect(PROMPT)
    terminal.sendline("stty size; tty; echo $TERM")
    terminal.expect(PROMPT)
    assert "33 101\r\n/dev/pts/0\r\nxterm\r\n" in str(terminal.before)
    terminal.sendline("sh -c 'echo sleeping; exec sleep 1000'")
    terminal.expect("sleeping\r\n")
    terminal.sendintr()
    terminal.expect(PROMPT)
    terminal.sendline("exit 5")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 5


def test_detached_command_runs_on(rl: Rl, service: str) -> None:
    assert rl("exec", "-d", service, "sh", "-c", "mkfifo /f; cat /f > /g").stdout == ""
    script = "while ! [ -p /f ]; do sleep 0.05; done; echo through > /f; "
    script += "while ! [ -s /g ]; do sleep 0.05; done; cat /g"
    assert out(rl, service, "sh", "-c", script) == "through\n"
    done = rl("exec", "-d", service, "no-such-program", check=False)
    assert done.returncode == 127


def test_command_ends_with_whoever_waits_for_it(rl: Rl, service: str) -> None:
    with rl.start(
        "exec", service, "sh", "-c", "echo $$; exec sleep 4321", stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        number = process.stdout.readline().decode().strip()
        process.send_signal(signal.SIGKILL)
    script = f"while [ -d /proc/{number} ]; do sleep 0.05; done; echo gone"
    assert out(rl, service, "sh", "-c", script) == "gone\n"


def test_command_ends_with_the_container(rl: Rl) -> None:
    rl("run", "-d", "--name", "brief", "alpine", "sleep", "1000")
    with rl.start("exec", "brief", "sh", "-c", "echo up; sleep 1000", stdout=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        rl("rm", "-f", "brief")
        assert process.wait(PATIENCE) == 137


def test_what_is_left_behind_is_not_waited_for(rl: Rl, service: str) -> None:
    assert rl("exec", service, "sh", "-c", "sleep 777 & echo hi").stdout == "hi\n"


def test_container_that_does_not_run_cannot_be_entered(rl: Rl) -> None:
    rl("create", "--name", "cold", "alpine", "true")
    done = rl("exec", "cold", "true", check=False)
    assert done.returncode == 125
    assert "container cold is not running" in done.stderr
    rl("rm", "cold")


@pytest.mark.parametrize("keys", ["ctrl-p,ctrl-q", "ctrl-a"])
def test_command_with_a_terminal_can_be_left_and_goes_on(rl: Rl, service: str, keys: str) -> None:
    # What it prints is read by nobody any more, and does not stop it.
    script = "echo READY; read x; head -c 99999 /dev/zero; echo $x > /left; tty >> /left; sleep 888"
    options = ("-it", "--detach-keys", keys, service, "sh", "-c", script)
    rl("exec", service, "rm", "-f", "/left")
    terminal = pexpect.spawn(
        rl.command[0], ["exec", *options], env=os.environ | rl.environment, timeout=PATIENCE
    )
    terminal.expect("READY")
    terminal.send("word\r")
    terminal.send({"ctrl-a": "\x01"}.get(keys, "\x10\x11"))
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    wait_until(lambda: "sleep 888\n" in rl("top", service).stdout)
    assert rl("exec", service, "cat", "/left").stdout.startswith("word\n/dev/pts/")
    rl("exec", service, "pkill", "-f", "sleep 888", check=False)
