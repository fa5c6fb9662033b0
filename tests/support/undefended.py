"""The command with something changed in it: a defence that is missing, or an adversary who waits.

A test that attacks proves something only if the same attack succeeds where the defence that it
names is missing. The product has no switch for that. Here the command runs in an interpreter whose
modules are changed first; the supervisor, PID 1 and all that enters a container are forked from it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.runner import Rl

_PROGRAM = """
import sys
exec(sys.argv.pop(1))
sys.argv[0] = "rl"
from rootless.main import main
sys.exit(main())
"""

# No process of ours can keep others from looking into it.
DUMPABLE = """
from rootless.kernel import syscalls
prctl = syscalls.prctl
def allow(option, argument=0, *rest):
    return prctl(option, 1 if option == syscalls.PR_SET_DUMPABLE else argument, *rest)
syscalls.prctl = allow
"""

# PID 1 in the holder's own user namespace, and not in one inside it.
BESIDE_THE_HOLDER = """
from rootless.kernel import nested, syscalls
fork = nested.fork
def beside(main, flags, *rest):
    return fork(main, flags & ~syscalls.CLONE_NEWUSER, *rest)
nested.fork = beside
nested._write_maps = lambda *_: None
"""


@dataclass(frozen=True)
class Changed(Rl):
    """``rl`` after the statements ``changes``, by the interpreter ``python``."""

    changes: tuple[str, ...] = ()
    python: Path = field(default_factory=lambda: Path(sys.executable))

    @property
    def command(self) -> list[str]:
        """Return the words that start the command."""
        return [str(self.python), "-c", _PROGRAM, "\n".join(self.changes)]

    @property
    def environment(self) -> dict[str, str]:
        """Return what ``python`` needs to find its library and ours, and the usual."""
        return {
            **super().environment,
            "PYTHONHOME": sysconfig.get_config_var("installed_base"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }


def changed(rl: Rl, *changes: str, python: Path | None = None) -> Changed:
    """Return ``rl`` with ``changes`` made beside those that it has."""
    if isinstance(rl, Changed):
        changes = (*rl.changes, *changes)
        python = python or rl.python
    return Changed(rl.directory, rl.registry_host, changes, python or Path(sys.executable))
