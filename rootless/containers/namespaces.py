"""Which namespaces a container has for itself, and which it shares, as a person asks for it.

Owns the syntax of --userns. Pure, and light: what it comes to is idmaps's and
spec's. Made by the command line, a part of the Request.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The modes, as they were given."""

    userns: str = ""
