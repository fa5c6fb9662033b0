"""Ending a running container from outside of its supervisor.

Only sends signals: the supervisor sees the end and records it. Called by the
command line and before a forced removal.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Final

from rootless.containers.spec import STOP_SIGNAL
from rootless.containers.store import Container, Process
from rootless.errors import RlError
from rootless.kernel import process

# For a kernel to end what was killed, and for a supervisor to record it.
_PATIENCE_SECONDS: Final = 10.0


def stop(container: Container, seconds: float) -> None:
    """Send the image's StopSignal, wait up to ``seconds``, then kill; as docker stop."""
    if container.active:
        number = parse_signal(container.config["annotations"].get(STOP_SIGNAL, "SIGTERM"))
        if not _end(container.state.init, number, seconds):
            kill(container)
        _end(container.state.supervisor, 0, _PATIENCE_SECONDS)


def kill(container: Container) -> None:
    """Kill a container, also one that is just being started; wait until that is recorded."""
    init, supervisor = container.state.init, container.state.supervisor
    if init is not None and init.alive():
        gone = _end(init, signal.SIGKILL, _PATIENCE_SECONDS)
        _end(supervisor, 0, _PATIENCE_SECONDS)
    else:
        gone = _end(supervisor, signal.SIGKILL, _PATIENCE_SECONDS)
    if not gone:
        raise RlError(f"container {container.name} could not be killed in time")


def parse_signal(text: str) -> int:
    """Return the number of a signal given as SIGTERM, TERM, RTMIN+3 or 15."""
    name, _, offset = text.upper().removeprefix("SIG").partition("+")
    try:
        number = int(name) if name.isdecimal() else signal.Signals[f"SIG{name}"]
        return signal.Signals(number + int(offset or 0))
    except (KeyError, ValueError):
        raise RlError(f"invalid signal: {text}") from None


def _end(known: Process | None, number: int, seconds: float) -> bool:
    """Signal a process (0: just watch it) and tell whether it is gone within ``seconds``."""
    if known is None or not known.alive():
        return True
    try:
        pidfd = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return True
    try:
        # Asked again now that the number cannot come to mean another process.
        if known.alive() and number:
            process.send_signal(pidfd, number)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(pidfd)
