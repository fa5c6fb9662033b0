"""How healthy a running container is, on disk: its status, and what the last checks said.

Owns containers/ID/health.json, in the form of Docker's State.Health: made anew
at each start, changed under containers.lock, renamed into place. It is not
synced, for no container outlives the machine. Called by the supervisor and by
`rl healthcheck run`; ``store`` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rootless.containers import health
from rootless.containers.announce import announce
from rootless.containers.store import HEALTH, Container, ContainerStore, read_health
from rootless.files import replace_file

_STATUS: Final = "health_status"


def begin(container: Container) -> None:
    """Let a container that is being started have shown nothing yet."""
    _write(container.path, health.beginning())


def add(
    container: Container, check: health.Check, result: Mapping[str, Any], since_start: float
) -> str:
    """Take one more result, tell if the status has changed by it, and return the status."""
    with ContainerStore(container.path.parent.parent).locked():
        before = read_health(container.path) or health.beginning()
        changed = health.after(before, result, check, since_start)
        _write(container.path, changed)
    status: str = changed["Status"]
    if status != before["Status"]:
        announce(container, f"{_STATUS}: {status}")
    return status


def _write(directory: Path, value: Mapping[str, Any]) -> None:
    replace_file(directory / HEALTH, json.dumps(value).encode(), durable=False)
