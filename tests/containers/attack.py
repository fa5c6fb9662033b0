"""What attacks on a container have in common: a secret of the host, and defences that are missing.

Used by the tests of attacks.
"""

from __future__ import annotations

import subprocess

from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

SECRET = "the-secret-of-the-host"

# Defences that are missing, as statements.
IMPORTS = "import os\n"
IMPORTS += "from rootless.containers import command, handshake, interpreter, join, rootfs\n"
IMPORTS += "from rootless.kernel import mounts, process, syscalls\n"
IMPORTS += "from rootless.volumes import filling\n"


def said(rl: Rl, *arguments: str, fd: int | None = None) -> str:
    """Return what the command printed; it inherits the descriptor ``fd`` from us."""
    done = subprocess.run(
        [*rl.command, *arguments],
        env=rl.environment, pass_fds=[] if fd is None else [fd], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, check=False, text=True, timeout=PATIENCE,
    )  # fmt: skip
    return done.stdout
