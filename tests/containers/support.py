"""What tests of `rl run` share.

Used by the tests of containers.
"""

from __future__ import annotations

import subprocess

from tests.support.runner import Rl

RUN = ("run", "--rm")


def out(rl: Rl, *arguments: str, **options: object) -> str:
    """Return what a container printed that is removed at its end."""
    return rl(*RUN, *arguments, **options).stdout  # type: ignore[arg-type]


def read_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of a process that was started with a pipe."""
    assert process.stdout is not None
    return process.stdout.readline()
