"""JSON that others wrote, read field by field: whatever it holds, what comes out has its type.

Owns the limits that hold for any of it. Pure. Called by ``manifest``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sized
from typing import Any, Final, NoReturn

from rootless.errors import RlError

# The distribution specification asks registries to take manifests of 4 MiB;
# containers/image holds configurations to the same size.
MAX_DOCUMENT: Final = 4 << 20


# NUL, and the halves of surrogate pairs that JSON can write one without the other.
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


def load(data: bytes, what: str) -> Any:
    """Return the value of a JSON text; RlError if it is none, or larger than any may be."""
    if len(data) > MAX_DOCUMENT:
        raise RlError(f"invalid {what}: {len(data)} bytes, more than {MAX_DOCUMENT}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RlError(f"invalid {what}: not JSON ({reason})") from None


class Reader:
    """A JSON object whose fields are checked as they are read; null is absent, as Go writes it."""

    def __init__(self, value: Any, what: str) -> None:
        self.what = what
        if not isinstance(value, dict):
            self.fail("an object was wanted")
        self.value: dict[str, Any] = value

    def fail(self, reason: str) -> NoReturn:
        raise RlError(f"invalid {self.what}: {reason}")

    def has(self, key: str) -> bool:
        return self.value.get(key) is not None

    def text(self, key: str, default: str = "") -> str:
        value = self.value.get(key)
        return default if value is None else self._checked(key, value)

    def integer(self, key: str, default: int) -> int:
        value = self.value.get(key)
        if value is None:
            return default
        if type(value) is not int:
            self.fail(f"{key} is not an integer")
        return value

    def texts(self, key: str, limit: int | None = None) -> tuple[str, ...]:
        return tuple(self._checked(key, item) for item in self._list(key, limit))

    def mapping(self, key: str, limit: int | None = None) -> dict[str, Any]:
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(f"{key} is not an object")
        self._check_count(key, value, limit)
        return {self._checked(key, name): item for name, item in value.items()}

    def labels(self, key: str) -> dict[str, str]:
        return {name: self._checked(key, item) for name, item in self.mapping(key).items()}

    def reader(self, key: str) -> Reader:
        return Reader(self.mapping(key), self.what)

    def readers(self, key: str, limit: int | None = None) -> list[Reader]:
        return [Reader(item, self.what) for item in self._list(key, limit)]

    def _list(self, key: str, limit: int | None) -> list[Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(f"{key} is not a list")
        self._check_count(key, value, limit)
        return value

    def _check_count(self, key: str, value: Sized, limit: int | None) -> None:
        if limit is not None and len(value) > limit:
            self.fail(f"{key} has {len(value)} entries, more than {limit}")

    def _checked(self, key: str, value: Any) -> str:
        """Return ``value`` if it is text that can be an argument, a variable or a name."""
        if not isinstance(value, str):
            self.fail(f"{key} is not text")
        if _UNUSABLE.search(value):
            self.fail(f"{key} has a character that no program takes")
        return value
