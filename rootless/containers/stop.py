"""Ending a running container from outside of its supervisor.

Only asks the supervisor, which passes the signal on, does not restart, and
records the end; where there is none, signals PID 1. Called by the
command line and before a forced removal.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Final

from rootless.containers.annotation import STOP_SIGNAL
from rootless.containers.announce import announce
from rootless.containers.console import connect
from rootless.containers.state import Process
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.kernel import process
from rootless.kernel.polling import wait

# For a kernel to end what was killed, and for a supervisor to record it, on a machine that stalls.
_PATIENCE_SECONDS: Final = 60.0

# Docker's.
DEFAULT_SECONDS: Final = 10


def stop(container: Container, seconds: float | None = None, number: int | None = None) -> None:
    """Send signal ``number`` or the StopSignal, wait up to ``seconds``, then kill; as docker stop.

    None is what --stop-timeout said when the container was made.
    """
    if seconds is None:
        wanted = container.extra.request.get("stop_timeout")
        seconds = DEFAULT_SECONDS if wanted is None else wanted
    if container.active:
        number = stop_signal(container) if number is None else number
        announce(container, "kill", signal=str(number))
        if not _ask(container, {"stop": number}):
            _end(container.state.init, number, 0)
        _thaw(container)
        if not _end(container.state.supervisor, 0, seconds):
            kill(container)
        announce(container, "stop")


def stop_signal(container: Container) -> int:
    """Return the signal that --stop-signal or the image names, SIGTERM for an image's nonsense."""
    try:
        return parse_signal(container.config["annotations"].get(STOP_SIGNAL, "SIGTERM"))
    except RlError:
        return signal.SIGTERM


def wait_for_supervisor(container: Container) -> None:
    """Wait until a container that ended is done with."""
    if not _end(container.state.supervisor, 0, _PATIENCE_SECONDS):
        raise RlError(f"container {container.name} is still busy with the end of its last run")


def send_signal(container: Container, number: int) -> None:
    """Send a signal to PID 1, as docker kill; one that means to end it is the last start's end."""
    if number == signal.SIGKILL:
        kill(container)
    else:
        announce(container, "kill", signal=str(number))
        key = "stop" if number == stop_signal(container) else "signal"
        if not _ask(container, {key: number}):
            _end(container.state.init, number, 0)
        if key == "stop":
            _thaw(container)


def _thaw(container: Container) -> None:
    """Let a paused container go on, so that it hears of its end."""
    if container.paused:
        from rootless.containers.pause import thaw

        thaw(container)


def kill(container: Container) -> None:
    """Kill a container, also one that is just being started; wait until that is recorded."""
    init, supervisor = container.state.init, container.state.supervisor
    starting = container.state.status == "created"
    announce(container, "kill", signal=str(int(signal.SIGKILL)))
    asked = not starting and _ask(container, {"stop": int(signal.SIGKILL)})
    # Also if the supervisor cannot hear us; what it does not record, its death will tell.
    _end(init, signal.SIGKILL, _PATIENCE_SECONDS)
    if container.state.cgroup:
        from rootless.cgroups import tree

        tree.kill(container.state.cgroup)
    gone = asked and _end(supervisor, 0, _PATIENCE_SECONDS)
    if not gone and starting:
        gone = _end(supervisor, signal.SIGKILL, _PATIENCE_SECONDS)
    if not gone and not _end(supervisor, 0, _PATIENCE_SECONDS):
        raise RlError(f"container {container.name} could not be killed in time")


def _ask(container: Container, message: dict[str, int]) -> bool:
    """Tell the supervisor what is wanted, whatever it is doing; False if it is not there.

    It passes the signal on as soon as there is a PID 1; after a "stop" it does not restart.
    """
    channel = connect(container.path)
    if channel is None:
        return False
    channel.send(message)
    channel.close()
    return True


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
        return bool(wait({pidfd: select.POLLIN}, seconds))
    finally:
        os.close(pidfd)
