"""Ending a running container from outside of its supervisor.

Only sends signals, and a word that no restart is wanted: the supervisor sees
the end and records it. Called by the
command line and before a forced removal.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Final

from rootless.containers.console import connect
from rootless.containers.spec import STOP_SIGNAL
from rootless.containers.store import Container, Process
from rootless.errors import RlError
from rootless.kernel import process

# For a kernel to end what was killed, and for a supervisor to record it.
_PATIENCE_SECONDS: Final = 10.0

# Docker's.
DEFAULT_SECONDS: Final = 10


def stop(container: Container, seconds: float | None = None) -> None:
    """Send the StopSignal, wait up to ``seconds``, then kill; as docker stop.

    None is what --stop-timeout said when the container was made.
    """
    if seconds is None:
        wanted = container.extra.request.get("stop_timeout")
        seconds = DEFAULT_SECONDS if wanted is None else wanted
    if container.active:
        _say_stop(container)
        if not _end(container.state.init, stop_signal(container), seconds):
            kill(container)
        wait_for_supervisor(container)


def stop_signal(container: Container) -> int:
    """Return the signal that --stop-signal or the image names."""
    return parse_signal(container.config["annotations"].get(STOP_SIGNAL, "SIGTERM"))


def wait_for_supervisor(container: Container) -> None:
    """Wait until a container that ended is done with."""
    if not _end(container.state.supervisor, 0, _PATIENCE_SECONDS):
        raise RlError(f"container {container.name} is still busy with the end of its last run")


def send_signal(container: Container, number: int) -> None:
    """Send a signal to PID 1, as docker kill."""
    if number in (signal.SIGKILL, stop_signal(container)):
        _say_stop(container)
    init = container.state.init
    if init is not None:
        _end(init, number, _PATIENCE_SECONDS if number == signal.SIGKILL else 0)
    if number == signal.SIGKILL:
        wait_for_supervisor(container)


def _say_stop(container: Container) -> None:
    """Let the supervisor know that the end is wanted, so that it does not restart."""
    if channel := connect(container.path):
        channel.send({"stop": True})
        channel.close()


def kill(container: Container) -> None:
    """Kill a container, also one that is just being started; wait until that is recorded."""
    _say_stop(container)
    init, supervisor = container.state.init, container.state.supervisor
    if init is not None and init.alive():
        gone = _end(init, signal.SIGKILL, _PATIENCE_SECONDS)
        _end(supervisor, 0, _PATIENCE_SECONDS)
    else:
        # Between two runs it has heard us; a start is cut off.
        patience = _PATIENCE_SECONDS if container.state.status == "restarting" else 0
        gone = _end(supervisor, 0, patience)
        gone = gone or _end(supervisor, signal.SIGKILL, _PATIENCE_SECONDS)
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
