"""Where the state of one user lives on disk.

Owns the choice of the directory; the parts below it each own theirs
(docs/architecture.md lists them). Called once per command by the command line.
"""

from __future__ import annotations

import os
from pathlib import Path

from rootless.errors import RlError


def state_root(chosen: str | None = None) -> Path:
    """Return the directory of all images and containers, made with mode 0700.

    In order: ``chosen`` (the --root option), $RL_ROOT, $XDG_DATA_HOME/rl,
    ~/.local/share/rl. Mode 0700 is a matter of safety: layers hold setuid
    files that belong to the user's own uid.
    """
    root = chosen or os.environ.get("RL_ROOT")
    if not root:
        data = os.environ.get("XDG_DATA_HOME", "")
        # The XDG specification: a relative path is invalid and must be ignored.
        base = data if data.startswith("/") else os.path.expanduser("~/.local/share")
        root = os.path.join(base, "rl")
    path = Path(root).absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise RlError(
            f"cannot use {path} for images and containers: {error.strerror} "
            "(choose another directory with --root or RL_ROOT)"
        ) from None
    return path
