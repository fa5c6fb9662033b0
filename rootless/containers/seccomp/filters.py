"""The filter of a container, compiled once for all that ask for the same.

Owns ROOT/seccomp/NAME: what was compiled, by which libseccomp, as a line of JSON, and after it the
program. Written whole; believed only if that line is what is wanted now, so that a name can be
short. Called by create.
"""

from __future__ import annotations

import json
import os
from binascii import crc32
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from rootless.containers.isolation import Isolation
from rootless.containers.seccomp.profile import Host, kernel_version, read, resolve
from rootless.files import write_file
from rootless.kernel import seccomp

# Counts what compile_filter makes of the same profile.
_GENERATION: Final = 1


def wanted(isolation: Isolation, capabilities: Collection[str]) -> dict[str, Any] | None:
    """Return ``linux.seccomp`` of config.json, None for a container without a filter."""
    if isolation.seccomp == "unconfined" or (isolation.privileged and not isolation.seccomp):
        return None
    if isolation.seccomp in ("", "builtin"):
        from rootless.containers.seccomp import default

        profile = default.profile()
    else:
        profile = read(isolation.seccomp)
    return resolve(profile, capabilities, _host())


def _host() -> Host:
    from rootless.images.platform import Platform

    system = os.uname()
    architecture = Platform.host().architecture
    return Host(system.machine, architecture, kernel_version(system.release))


def compiled(root: Path, wanted: Mapping[str, Any]) -> bytes:
    """Return the program for ``linux.seccomp``; the caller holds the store."""
    versions = {"libseccomp": seccomp.library_version(), "generation": _GENERATION}
    key = json.dumps({**versions, "seccomp": wanted}).encode()
    path = root / "seccomp" / f"{crc32(key):08x}"
    try:
        found, _, program = path.read_bytes().partition(b"\n")
        if found == key:
            return program
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    program = seccomp.compile_filter(wanted)
    aside = root / "tmp" / f"seccomp-{os.urandom(8).hex()}"
    write_file(aside, path, b"\n".join((key, program)))
    return program
