"""The command as a user of the guest types it, with that user's own store."""

from __future__ import annotations

import subprocess

IMAGE = "localhost/busybox"


def rl(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run rl to its end; with ``check``, a status other than 0 fails the test."""
    done = subprocess.run(
        ["rl", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if check and done.returncode:
        raise AssertionError(f"rl {arguments} ended with {done.returncode}: {done.stderr}")
    return done
