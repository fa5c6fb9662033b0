"""How Go sees a value: its truth, its type, its text. Pure; called by execute and functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


class Map(dict[str, Any]):
    """A Go map: any key may be absent (labels, ports), unlike a struct's fields."""


class Struct(dict[str, Any]):
    """A Go struct with fields that JSON leaves out: where missing, those of ``pointers`` are nil.

    Those of ``empty`` are what it says.
    """

    def __init__(self, fields: dict[str, Any], *pointers: str, **empty: Any) -> None:
        super().__init__(fields)
        self.absent = dict.fromkeys(pointers) | empty


def truth(value: Any) -> bool:
    """Go's idea of truth: false, 0, "", nil and what is empty are not; every struct is."""
    if isinstance(value, dict) and not isinstance(value, Map):
        return True
    return bool(value)


def type_name(value: Any) -> str:
    """Return the Go type that errors and %T speak of."""
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case list() | tuple():
            return "list"
        case Map():
            return "map"
        case dict():
            return "struct"
    return "func"


def format_value(value: Any) -> str:
    """Return what an action prints: fmt's %v, but ``<no value>`` for nil."""
    return "<no value>" if value is None else format_with(value, format_scalar)


def format_with(value: Any, scalar: Callable[[Any], str]) -> str:
    """Return ``map[k:v]``, ``[a b]`` or ``{a b}`` with every scalar in the form asked for."""
    match value:
        case Map():
            items = (f"{scalar(key)}:{format_with(value[key], scalar)}" for key in sorted(value))
            return f"map[{' '.join(items)}]"
        case dict():
            fields = (field for field in value.values() if not callable(field))
            return f"{{{' '.join(format_with(field, scalar) for field in fields)}}}"
        case list() | tuple():
            return f"[{' '.join(format_with(item, scalar) for item in value)}]"
    return scalar(value)


def format_scalar(value: Any) -> str:
    """Return the %v of what is no list, map or struct."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _format_float(value)
    return str(value)


def _format_float(value: float) -> str:
    """Return the fewest digits that mean ``value``, as strconv's %g: 1.5, 1e+06."""
    forms = (f"{value:.{digits}e}" for digits in range(18))
    shortest = next(form for form in forms if float(form) == value)
    if -4 <= int(shortest.partition("e")[2]) < 6:
        return repr(value).removesuffix(".0")
    return shortest


def quote(text: str) -> str:
    """Return ``text`` as a Go string literal (strconv.Quote): on one line, nothing unprintable."""
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
