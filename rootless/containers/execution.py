"""`rl exec`, from what was asked for to the exit code.

Owns the order of things and the events; what is done is ``enter``'s. Knows no command line: called
by the command, or by ``beside`` with what a child has read of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rootless.containers import enter
from rootless.containers.announce import announce
from rootless.containers.attach import DEFAULT_KEYS, parse_keys
from rootless.containers.store import ContainerStore
from rootless.errors import RlError


def run(
    root: Path,
    name: str,
    command: Sequence[str],
    *,
    env: Sequence[str],
    cwd: str | None,
    user: str | None,
    terminal: bool,
    interactive: bool,
    detached: bool,
    privileged: bool,
    keys: str | None,
) -> int:
    """Run ``command`` in the container ``name`` and return its exit code, 0 if it was left."""
    keys_to_leave = parse_keys(DEFAULT_KEYS if keys is None else keys)
    container = ContainerStore(root).get(name)
    wanted = enter.plan(
        container,
        command,
        env=env,
        cwd=cwd,
        user=user,
        # Nobody would hold the terminal of a detached command.
        terminal=terminal and not detached,
        privileged=privileged,
        detached=detached,
    )
    events = {"execID": os.urandom(32).hex()}
    shown = " ".join(command)
    announce(container, f"exec_create: {shown}", **events)
    announce(container, f"exec_start: {shown}", **events)
    code: int | None = RlError.exit_code
    try:
        code = enter.run(
            container, wanted, interactive=interactive and not detached, keys=keys_to_leave
        )
    except RlError as error:
        code = error.exit_code
        raise
    finally:
        # How a command ends that goes on without us, nobody is there to see.
        if code or not (detached or code is None):
            announce(container, "exec_die", **events, exitCode=str(code))
    return code or 0
