"""The --filter option of lists: ``key=value``, several of one key meaning "any of them".

Owns its syntax and how labels and names match. Pure. Called by the commands that list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from rootless.errors import RlError


def parse(texts: Sequence[str], known: Collection[str]) -> dict[str, list[str]]:
    """Return the values for each key; RlError for a key that is not ``known``."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, given, value = text.partition("=")
        key = key.strip().lower()
        if not given:
            raise RlError(f"invalid filter {text!r}: expected NAME=VALUE")
        if key not in known:
            raise RlError(f"invalid filter {text!r}: there are {', '.join(sorted(known))}")
        found.setdefault(key, []).append(value)
    return found


def invalid(key: str, value: str, why: str) -> RlError:
    """Return the error of a value that a filter cannot have."""
    return RlError(f"invalid filter '{key}={value}': {why}")


def truth(key: str, value: str) -> bool:
    """Return what a filter that is true or false says."""
    if value.lower() not in ("true", "false", "1", "0"):
        raise invalid(key, value, "it is true or false")
    return value.lower() in ("true", "1")


def labels_match(wanted: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Tell whether every ``name`` or ``name=value`` of ``wanted`` is among the labels."""
    for text in wanted:
        name, given, value = text.partition("=")
        if name not in labels or (given and labels[name] != value):
            return False
    return True


def any_pattern(patterns: Sequence[str]) -> re.Pattern[str]:
    """Return a regular expression that finds any of ``patterns``; RlError if one is none."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise RlError(f"invalid filter {pattern!r}: {error}") from None
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
