"""Which operating system and processor an image is for, and which ones this machine runs.

Owns their names, as Go writes them. Called for the choice of an image in an index, and for what
a person names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

from rootless.errors import RlError

WORD = re.compile(r"[a-z0-9_.-]*")


class Platform(NamedTuple):
    """An operating system and a processor, in containerd's normal form (amd64, arm64, arm/v7…)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``os/arch[/variant]``, ``arch`` or ``os``, as the --platform option takes it."""
        words = text.lower().split("/")
        if not 1 <= len(words) <= 3 or not all(w and WORD.fullmatch(w) for w in words):
            raise RlError(f"invalid platform {text!r} (os/arch[/variant] wanted: linux/arm64)")
        if len(words) == 1:
            host = cls.host()
            if words[0] == host.os:
                return host
            words.insert(0, host.os)
        return cls.normalized(*words)

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of this machine."""
        machine = os.uname().machine.lower()
        # A 32-bit userland on an ARMv8 kernel says armv8l.
        arm = re.fullmatch(r"armv(\d)\w*", machine)
        if arm:
            return cls.normalized("linux", "arm", arm[1])
        if re.fullmatch(r"i\d86", machine):
            machine = "386"
        elif machine == "loongarch64":
            machine = "loong64"
        elif machine.startswith("mips") and sys.byteorder == "little":
            machine += "le"
        return cls.normalized("linux", machine)

    @classmethod
    def normalized(cls, system: str, architecture: str, variant: str = "") -> Platform:
        """Give every processor its one name (containerd's platforms/database.go)."""
        aliases = {
            "i386": ("386", ""),
            "x86_64": ("amd64", variant),
            "x86-64": ("amd64", variant),
            "aarch64": ("arm64", variant),
            "armhf": ("arm", "v7"),
            "armel": ("arm", "v6"),
        }
        architecture, variant = aliases.get(architecture, (architecture, variant))
        if variant.isascii() and variant.isdigit():
            variant = "v" + variant
        defaults = {"amd64": "v1", "arm64": "v8"}
        if defaults.get(architecture) == variant:
            variant = ""
        elif architecture == "arm" and not variant:
            variant = "v7"
        return cls(system, architecture, variant)

    def runs(self) -> Iterator[Platform]:
        """Yield the platforms whose programs run on this one, the best first.

        A newer variant runs the older ones, amd64 runs 386 and arm64 runs arm
        (containerd's platforms.Only).
        """
        yield self
        number = int(self.variant[1:]) if re.fullmatch("v[0-9]{1,2}", self.variant) else 0
        if self.architecture == "amd64":
            for older in range(number - 1, 0, -1):
                yield Platform.normalized(self.os, "amd64", f"v{older}")
            yield Platform(self.os, "386")
        elif self.architecture == "arm":
            for older in range(number - 1, 4, -1):
                yield Platform(self.os, "arm", f"v{older}")
        elif self.architecture == "arm64":
            for older in range(number - 1, 7, -1):
                yield Platform.normalized(self.os, "arm64", f"v{older}")
            for older in range(8, 4, -1):
                yield Platform(self.os, "arm", f"v{older}")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
