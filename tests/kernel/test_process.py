"""Children of ours: their exit status, their descriptors, and their identity in time."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from rootless.kernel import proc, process, syscalls


@pytest.mark.parametrize("status", [0, 7, 255])
def test_status_of_a_child_is_what_it_returned(status: int) -> None:
    child = process.fork(lambda: status)
    assert child.wait() == status
    # Asked again, it is still known.
    assert child.wait() == status


def _sleep() -> int:
    time.sleep(1000)
    return 0


def test_status_of_a_killed_child_is_128_and_the_signal() -> None:
    child = process.fork(_sleep)
    child.kill()
    assert child.wait() == 128 + signal.SIGKILL
    child.kill()


def test_child_that_raises_has_a_status_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ValueError("in the child")

    assert process.fork(fail).wait() == process.CHILD_FAILED
    assert "ValueError: in the child" in capfd.readouterr().err


def test_child_keeps_only_the_descriptors_it_was_given() -> None:
    reader, writer = os.pipe()
    other = os.open("/", os.O_RDONLY)

    def look() -> int:
        held = [fd for fd in range(3, 256) if _is_open(fd)]
        os.write(writer, repr(held).encode())
        return 0

    try:
        assert process.fork(look, keep=[writer]).wait() == 0
        assert os.read(reader, 1000) == repr([writer]).encode()
    finally:
        for fd in (reader, writer, other):
            os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_child_can_be_pid_1_of_a_new_namespace() -> None:
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWPID
    assert process.fork(os.getpid, flags).wait() == 1


def test_start_time_is_that_of_the_process_and_none_for_no_process() -> None:
    assert proc.start_time(os.getpid()) == proc.start_time(os.getpid())
    with subprocess.Popen(["sleep", "1000"]) as later:
        later_start = proc.start_time(later.pid)
        later.kill()
    own_start = proc.start_time(os.getpid())
    assert own_start is not None
    assert later_start is not None
    assert later_start > own_start
    assert proc.start_time(later.pid) is None


def test_zombie_counts_as_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert proc.start_time(child.pid) is None


def test_name_of_a_process_may_hold_anything() -> None:
    def rename() -> int:
        syscalls.set_process_name("a) S 1 (b")
        return proc.start_time(os.getpid()) is None

    assert process.fork(rename).wait() == 0
