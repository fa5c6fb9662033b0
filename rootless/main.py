"""Where the command `rl` begins.

Puts the process in order and forks the supervisor that `rl run` and `rl start` are going to
need, before anything else is loaded: the two load side by side, which is a quarter of a
container's start. All else is rootless.cli's, and for `rl exec` rootless.main_exec's.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final, NoReturn

# `rl run`, `rl container run`; other ways to say it, as after a global option, only start later.
_STARTING: Final = ("run", "start")


def main() -> NoReturn:
    """Run the command that the process was started with, and exit with its status."""
    _open_standard_streams()
    # Whatever the user's is: what we make is made with the modes we choose.
    os.umask(0o022)
    # What is loaded now stays: looking for garbage in it costs a start 5 ms.
    gc.set_threshold(100_000)
    words = [word for word in sys.argv[1:3] if word != "container"]
    if words and words[0] in _STARTING:
        from rootless.containers.launch import Launch

        Launch.prepare()
    if words[:1] == ["exec"] and "_RL_COMPLETE" not in os.environ:
        from rootless.main_exec import execute
    else:
        from rootless.cli import execute

    status = execute(sys.argv[1:])
    # Taking the interpreter down would take as long as starting it did.
    os._exit(status)


def _open_standard_streams() -> None:
    """Give a closed standard stream the null device, before its number goes to another file."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
