"""The options of a volume, as `volume create -o` and `--mount volume-opt=` take them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rootless import quota
from rootless.errors import RlError
from rootless.quota import Disk


def parse(options: Iterable[str]) -> Disk:
    """Return the limit of a volume: ``size=1G``, ``inodes=N``; or Podman's ``o=size=1G,inodes=N``.

    RlError for any other, as those that name a device to mount.
    """
    words = []
    for option in options:
        name, _, value = option.partition("=")
        if name in ("type", "device"):
            raise RlError(
                f"a volume takes no option {option!r}: it is a directory, and another file system "
                "needs root (--tmpfs mounts memory, -v a directory of the host)"
            )
        words += value.split(",") if name == "o" else [option]
    disk = quota.parse(words, "volume option")
    if len({word.partition("=")[0] for word in words}) < len(words):
        raise RlError(f"a volume option is given twice: {', '.join(words)}")
    return disk
