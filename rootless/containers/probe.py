"""One health check carried out in a running container, by a process of the host.

Enters the container as `rl exec` does, keeps the beginning of what the command
prints, and ends it when its time is over, with all that it has started. What
runs there is hostile: it can neither delay us nor make us keep more. Called by
``monitor`` in a process of its own and by `rl healthcheck run`.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any, Final

from rootless.channel import Channel
from rootless.containers import enter
from rootless.containers.health import LONGEST_OUTPUT, Check
from rootless.containers.state import now
from rootless.containers.store import Container
from rootless.kernel import proc, process
from rootless.kernel.polling import wait

# Docker's exit code of a check that came to no end.
_NO_END: Final = -1
# How often what is left of a check is looked for, and killed.
_TRIES: Final = 200
_TRY_SECONDS: Final = 0.01
_REAPING_SECONDS: Final = 1.0

Result = dict[str, Any]


def run(container: Container, check: Check) -> Result:
    """Carry a check out and return its result, in the form of Docker's log of checks."""
    began = now()
    try:
        code, output = _run(container, check)
    except Exception as error:
        return failed(str(error) or type(error).__name__, began)
    return _result(began, code, output)


def failed(why: str, began: str | None = None) -> Result:
    """Return the result of a check that could not be carried out: it has failed."""
    return _result(began or now(), _NO_END, why)


def _result(began: str, code: int, output: str) -> Result:
    return {"Start": began, "End": now(), "ExitCode": code, "Output": output[:LONGEST_OUTPUT]}


def _run(container: Container, check: Check) -> tuple[int, str]:
    wanted = enter.plan(container, check.args) | {"reaper": True}
    source, sink = os.pipe()
    os.set_blocking(source, False)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    joining, channel = enter.begin(container, wanted, [null, sink, sink])
    os.close(sink)
    os.close(null)
    try:
        return _follow(joining, channel, source, check.timeout)
    finally:
        _end(joining)
        channel.close()
        os.close(source)


def _follow(
    joining: process.Child, channel: Channel, source: int, seconds: float
) -> tuple[int, str]:
    deadline = time.monotonic() + seconds
    output = bytearray()
    watched = {joining.pidfd, channel.fileno(), source}
    while True:
        rest = deadline - time.monotonic()
        ready = wait(dict.fromkeys(watched, select.POLLIN), max(rest, 0))
        if channel.fileno() in ready:
            message, _ = channel.receive()
            if message is None:
                # It is executed.
                watched.discard(channel.fileno())
            else:
                enter.raise_error(message)
                channel.send({"start": True})
        if source in ready and not _read(source, output):
            watched.discard(source)
        if joining.pidfd in ready:
            break
        if rest <= 0:
            return _NO_END, f"Health check exceeded timeout ({seconds:g}s)"
    # What it printed last; what others still print is not waited for.
    while len(output) < LONGEST_OUTPUT and wait({source: select.POLLIN}, 0):
        if not _read(source, output):
            break
    return joining.wait(), output.decode(errors="replace")


def _read(source: int, output: bytearray) -> bool:
    """Read on, and keep no more than is wanted; False at the end."""
    data = os.read(source, LONGEST_OUTPUT)
    output += data[: LONGEST_OUTPUT - len(output)]
    return bool(data)


def _end(joining: process.Child) -> None:
    """Kill a check that has not ended, with whatever it started.

    The process between us and the command adopts all that the command leaves
    behind; stopped, it cannot end before that is gone.
    """
    if joining.running:
        reapers = {pid for pid, parent in proc.parents().items() if parent == joining.pid}
        for pid in reapers:
            _signal(pid, joining.pid, signal.SIGSTOP)
        for _ in range(_TRIES):
            below = proc.descendants(joining.pid)
            if not below.keys() - reapers:
                break
            for pid in below.keys() - reapers:
                _signal(pid, below[pid], signal.SIGKILL)
            time.sleep(_TRY_SECONDS)
        for pid in reapers:
            _signal(pid, joining.pid, signal.SIGCONT)
        wait({joining.pidfd: select.POLLIN}, _REAPING_SECONDS)
        joining.kill()
    joining.wait()


def _signal(pid: int, parent: int, number: int) -> None:
    """Signal a child of ``parent``, and no other process that has its number by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if proc.parent(pid) == parent:
        process.send_signal(pidfd, number)
    os.close(pidfd)


def main(container: Container, check: Check, channel: Channel) -> int:
    """Carry a check out for a supervisor, which is told the result."""
    process.die_with_parent()
    process.restore_signals()
    channel.send(run(container, check))
    return 0
