"""Sizes in bytes as Docker's options take them: ``512m``, ``1.5g``, ``10MiB``. Pure."""

from __future__ import annotations

import re
from typing import Final

from rootless.errors import RlError

# What the kernel and Docker count with.
LARGEST: Final = (1 << 63) - 1
_DIGITS: Final = 100

_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Return the bytes of a size; its units are powers of 1024."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise RlError(f"invalid size {text!r}: expected a number and b, k, m, g or t")
    number, unit = found.groups()
    factor = 1024 ** _POWERS[unit.lower()]
    # Of more digits than int() takes, a float is infinite.
    exact = number.isdecimal() and len(number) <= _DIGITS
    size = (int(number) if exact else float(number)) * factor
    if size > LARGEST:
        raise RlError(f"invalid size {text[:100]!r}: the largest is {LARGEST} bytes")
    return int(size)
