"""Child processes of ours: forked with namespaces, known by pidfd, never leaking descriptors.

Owns how a child of this program begins. Called by userns, and by containers for
the overlay server and for PID 1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from rootless.kernel import syscalls

# The exit status of a child of ours that failed in a way it could not report.
CHILD_FAILED = 70


class Child:
    """A running child: its number and a descriptor that can never mean another process."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self._status: int | None = None

    @property
    def running(self) -> bool:
        """Whether its end was not yet waited for."""
        return self._status is None

    def kill(self) -> None:
        """Send SIGKILL; a child that already ended is no error."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal; a child that already ended is no error."""
        if self._status is None:
            send_signal(self.pidfd, number)

    def wait(self) -> int:
        """Wait for the end and return its status as a shell does (128+n for a signal)."""
        if self._status is None:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            assert result is not None
            os.close(self.pidfd)
            exited = result.si_code == os.CLD_EXITED
            self._status = result.si_status if exited else 128 + result.si_status
        return self._status


def find_program(name: str, path: str) -> str | None:
    """Return where a program is, in the directories of ``path``; None if it is in none."""
    for directory in filter(None, path.split(":")):
        found = f"{directory}/{name}"
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal; a process that already ended is no error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def fork(
    main: Callable[[], int], flags: int = 0, keep: Iterable[int] = (), cgroup: int = -1
) -> Child:
    """Run ``main`` in a child, in the new namespaces of ``flags``; its result is the exit status.

    ``cgroup`` is a descriptor of the one to begin in. The child keeps the
    descriptors 0-2 and ``keep``. Other threads of the parent
    must be idle: what they hold would stay held in the child for ever.
    """
    _flush()
    pid, pidfd = syscalls.clone3(flags, cgroup)
    if pid == 0:
        _run_child(main, keep)
    return Child(pid, pidfd)


def _run_child(main: Callable[[], int], keep: Iterable[int]) -> NoReturn:
    status = CHILD_FAILED
    try:
        close_all_but(keep)
        status = main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else CHILD_FAILED
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        try:
            _flush()
        finally:
            os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                pass


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor but 0, 1, 2 and ``keep``."""
    first = 3
    for fd in sorted(fd for fd in set(keep) if fd > 2):
        syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first, 0xFFFFFFFF)


def restore_signals() -> None:
    """Give every signal its default action and unblock all, as a program to execute expects."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send ``number`` when the parent ends (lost on setuid and its like)."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, number)
