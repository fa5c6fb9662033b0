"""What people who know Docker will type, and what is not here yet.

Owns the names of Docker's commands and of `docker run`'s options that have no
counterpart. Pure; imported when a name is not found.
"""

from __future__ import annotations

from typing import Final

_COMMANDS: Final = frozenset(
    (
        "build builder buildx commit compose config context df "
        "history import load login logout manifest node plugin "
        "prune push save search secret service stack swarm tag"
    ).split()
)
# What does it meanwhile; images are an OCI layout.
_IMAGE: Final = "oci:$HOME/.local/share/rl/images:docker.io/library/NAME:TAG"
_INSTEAD: Final = {
    "login": "skopeo login",
    "logout": "skopeo logout",
    "push": f"skopeo copy {_IMAGE} docker://…",
    "save": f"skopeo copy {_IMAGE} oci-archive:…",
}
_RUN_OPTIONS: Final = frozenset(
    ("annotation domainname gpus link oom-kill-disable runtime").split()
)


def is_command(name: str) -> bool:
    """Tell whether Docker has a command of that name that is not here."""
    return name in _COMMANDS


def instead_of(name: str) -> str:
    """Return another program's command that does what ours cannot yet, or ""."""
    return _INSTEAD.get(name, "")


def run_option(name: str) -> str | None:
    """Return the long name of an option of `docker run` that is not here, None for any other."""
    return name if name.removeprefix("--") in _RUN_OPTIONS else None
