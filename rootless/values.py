"""Values as JSON has them.

Owns how a NamedTuple is written as an object. What a start needs are NamedTuples, since making
a dataclass costs each start of a process five times as much. Called by all who write or send one.
"""

from __future__ import annotations

from typing import Any, NamedTuple


def as_dict(value: NamedTuple) -> dict[str, Any]:
    """Return the fields of a NamedTuple, and of those in it, by their names."""
    return dict(zip(value._fields, map(_plain, value), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return as_dict(value)  # type: ignore[arg-type]
        return tuple(map(_plain, value))
    return value
