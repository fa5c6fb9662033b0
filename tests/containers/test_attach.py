"""Looking on at a container that runs, leaving it, and coming back."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from rootless.containers.attach import DetachKeys, Typing, parse_keys
from rootless.errors import RlError
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE, wait_until

PROMPT = "READY> "
LEAVE = "\x10\x11"


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-@,ctrl-[", b"a\0\x1b"), ("", b""), ("ctrl-A", b"\1")],
)
def test_keys_are_written_as_in_docker(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "shift-a", "ä", ","])
def test_other_keys_are_an_error(text: str) -> None:
    with pytest.raises(RlError, match="invalid detach keys"):
        parse_keys(text)


def test_keys_to_leave_count_when_all_before_them_is_passed_on() -> None:
    source, typed = os.pipe()
    read, sink = os.pipe()
    os.set_blocking(sink, False)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(sink, b"x" * 65536)
        typing = Typing(sink, b"\x10\x11")
        typing.source = source
        os.write(typed, b"word\x10\x11lost")
        assert typing.advance()
        assert not typing.left
        while data := os.read(read, 65536):
            if not data.strip(b"x"):
                typing.advance()
            if not data.endswith(b"x"):
                break
        assert data.endswith(b"word")
        assert typing.left
    finally:
        for fd in (source, typed, read, sink):
            os.close(fd)


@pytest.mark.parametrize(
    ("typed", "passed", "found"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10b"], b"a\x10b", False),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10\x10\x11"], b"\x10", True),
    ],
)
def test_keys_are_found_wherever_they_are_and_nothing_else_is_lost(
    typed: list[bytes], passed: bytes, found: bool
) -> None:
    keys = DetachKeys(b"\x10\x11")
    assert b"".join(map(keys.pass_on, typed)) == passed
    assert keys.found is found


def spawn(rl: Rl, *arguments: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        rl.command[0], list(arguments), env=os.environ | rl.environment, encoding="utf-8",
        timeout=PATIENCE, dimensions=(33, 101),
    )  # fmt: skip


@contextmanager
def shell(rl: Rl, name: str, *options: str) -> Iterator[pexpect.spawn[str]]:
    arguments = ("--name", name, "-e", f"PS1={PROMPT}", *options, "alpine", "sh")
    terminal = spawn(rl, "run", "-it", *arguments)
    try:
        terminal.expect(PROMPT)
        yield terminal
    finally:
        terminal.close(force=True)
        rl("rm", "-f", name)


def test_shell_is_left_by_keys_and_found_again_as_it_was(rl: Rl) -> None:
    with shell(rl, "kept") as terminal:
        terminal.sendline("mine=yes")
        terminal.expect(PROMPT)
        terminal.send(LEAVE)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0
        assert rl("inspect", "-f", "{{.State.Status}}", "kept").stdout == "running\n"
        again = spawn(rl, "attach", "kept")
        again.setwinsize(40, 120)
        again.sendline("echo $mine; exit 6")
        again.expect("yes\r\n")
        again.expect(pexpect.EOF)
        again.close()
        assert again.exitstatus == 6


def test_what_was_typed_in_one_go_with_the_keys_to_leave_is_not_lost(rl: Rl) -> None:
    with shell(rl, "hasty") as terminal:
        supervisor = supervisor_of(rl, "hasty")
        # So busy that it hears of the leaving together with what was typed before.
        os.kill(supervisor, signal.SIGSTOP)
        try:
            terminal.send(f"mine=before\r{LEAVE}mine=after\r")
            # No end of file: the supervisor has our terminal as long as it is stopped.
            wait_until(lambda: not terminal.isalive())
        finally:
            os.kill(supervisor, signal.SIGCONT)
        again = spawn(rl, "attach", "hasty")
        again.sendline("echo found $mine; exit 6")
        again.expect_exact("found before\r\n")
        again.expect(pexpect.EOF)
        again.close()
        assert again.exitstatus == 6


def supervisor_of(rl: Rl, name: str) -> int:
    """Return the process that holds the container's terminal."""
    pid = int(rl("inspect", "-f", "{{.State.Pid}}", name).stdout)
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    raise AssertionError("PID 1 has no parent")


def test_start_attached_of_what_runs_already_looks_on(rl: Rl) -> None:
    script = 'echo early; while read x; do echo "got $x"; exit 5; done'
    rl("run", "-d", "-i", "--name", "runs", "alpine", "sh", "-c", script)
    done = rl("start", "-ai", "runs", input="word\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "got word\n", "")
    assert rl("logs", "runs").stdout == "early\ngot word\n"
    rl("rm", "runs")


def test_other_keys_can_be_chosen(rl: Rl) -> None:
    with shell(rl, "chosen", "--detach-keys", "ctrl-a,x") as terminal:
        terminal.send("\x01x")
        terminal.expect(pexpect.EOF)
        assert rl("inspect", "-f", "{{.State.Status}}", "chosen").stdout == "running\n"


def test_start_attached_to_a_terminal_container_is_a_terminal(rl: Rl) -> None:
    rl("create", "-it", "--name", "later", "-e", f"PS1={PROMPT}", "alpine", "sh")
    terminal = spawn(rl, "start", "-ai", "later")
    terminal.expect(PROMPT)
    terminal.sendline("stty size; exit 4")
    terminal.expect("33 101")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 4
    rl("rm", "later")


def test_detached_shell_waits_for_whoever_attaches(rl: Rl) -> None:
    rl("run", "-dit", "--rm", "--name", "ready", "-e", f"PS1={PROMPT}", "alpine", "sh")
    terminal = spawn(rl, "attach", "ready")
    terminal.sendline("stty size; exit 9")
    terminal.expect("33 101")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 9
    assert "no such container" in rl("inspect", "ready", check=False).stderr


def test_two_see_the_same_and_one_may_be_killed(rl: Rl) -> None:
    script = "trap 'echo end; exit 2' TERM; while read x; do echo \"$x\"; done; sleep 99"
    rl("run", "-d", "-i", "--name", "seen", "alpine", "sh", "-c", script)
    first = rl.start("attach", "seen", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    second = rl.start("attach", "--no-stdin", "seen", stdout=subprocess.PIPE)
    assert first.stdin is not None
    assert first.stdout is not None
    assert second.stdout is not None
    # As often as it takes until the other one is there.
    while not select.select([second.stdout], [], [], 0.1)[0]:
        first.stdin.write(b"one\n")
        first.stdin.flush()
    assert first.stdout.readline() == b"one\n"
    first.kill()
    first.communicate()
    third = rl.start("attach", "seen", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert third.stdin is not None
    third.stdin.write(b"two\n")
    third.stdin.flush()
    while second.stdout.readline() != b"two\n":
        assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    second.communicate()
    assert second.returncode == 2
    third.communicate(timeout=PATIENCE)
    assert third.returncode == 2
    rl("rm", "seen")


def test_stopped_container_cannot_be_attached_to(rl: Rl) -> None:
    rl("create", "--name", "still", "alpine", "true")
    done = rl("attach", "still", check=False)
    assert done.returncode == 125
    assert "cannot attach to a stopped container" in done.stderr
    rl("rm", "still")


def test_name_can_be_changed_to_one_that_is_free(rl: Rl) -> None:
    rl("create", "--name", "still", "alpine", "true")
    rl("rename", "still", "moved")
    assert rl("ps", "-a", "--format", "{{.Names}}").stdout == "moved\n"
    assert "already in use" in rl("rename", "moved", "moved", check=False).stderr
    assert "invalid container name" in rl("rename", "moved", "a b", check=False).stderr
    rl("rm", "moved")


def test_only_the_streams_that_were_asked_for_are_connected(rl: Rl) -> None:
    script = ("alpine", "sh", "-c", "cat; echo out; echo err >&2; exit 3")
    done = rl("run", "-q", "-a", "stdout", "--name", "some", *script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    assert rl("logs", "some").stderr == "err\n"
    rl("rm", "some")
    done = rl("run", "-i", "-a", "stdin", "--name", "mute", *script, input="in\n")
    assert done.stdout.strip() == rl("inspect", "-f", "{{.Id}}", "mute").stdout.strip()
    assert rl("logs", "mute").stdout == "in\nout\n"
    rl("rm", "mute")
    both = rl("run", "-q", "-a", "STDOUT", "-a", "stderr", "--rm", *script, check=False)
    assert (both.stdout, both.stderr) == ("out\n", "err\n")
    assert "-a and -d" in rl("run", "-d", "-a", "stdin", *script, check=False).stderr
    assert "invalid stream" in rl("run", "-a", "std", *script, check=False).stderr


@pytest.mark.parametrize("begin", ["run", "start"])
def test_signals_stay_with_the_command_if_that_is_wanted(rl: Rl, begin: str) -> None:
    script = ("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
    arguments = ["run", "--sig-proxy=false", "--name", "calm", "alpine", *script]
    if begin == "start":
        rl("create", "--name", "calm", "alpine", *script)
        arguments = ["start", "-a", "--sig-proxy=false", "calm"]
    with rl.start(*arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    assert rl("inspect", "-f", "{{.State.Status}}", "calm").stdout == "running\n"
    rl("rm", "-f", "calm")


def test_labels_come_from_a_file_too(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("# comment\na=file\nb=two words\n")
    options = ("--label-file", str(tmp_path / "labels"), "--label", "a=line")
    rl("create", "--name", "labelled", *options, "alpine", "true")
    form = "{{json .Config.Labels}}"
    labels = json.loads(rl("inspect", "-f", form, "labelled").stdout)
    assert labels.items() >= {"a": "line", "b": "two words"}.items()
    rl("rm", "labelled")
