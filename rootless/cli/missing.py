"""What people who know Docker will type, and what is not here yet.

Owns the names of Docker's commands and of `docker run`'s options that have no
counterpart. Pure; imported when a name is not found.
"""

from __future__ import annotations

from typing import Final

_COMMANDS: Final = frozenset(
    (
        "build builder buildx commit compose config context df "
        "history import load login logout manifest network node plugin "
        "prune push save search secret service stack swarm tag"
    ).split()
)
_RUN_OPTIONS: Final = frozenset(
    ("annotation domainname gpus ip6 link network-alias oom-kill-disable runtime").split()
)


def is_command(name: str) -> bool:
    """Tell whether Docker has a command of that name that is not here."""
    return name in _COMMANDS


def run_option(name: str) -> str | None:
    """Return the long name of an option of `docker run` that is not here, None for any other."""
    return name if name.removeprefix("--") in _RUN_OPTIONS else None
