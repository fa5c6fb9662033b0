"""The functions that a template can call: Go's own and those that Docker adds.

Owns their arguments and results. Pure. Called by execute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rootless.cli.template.lex import TemplateError
from rootless.cli.template.printf import sprintf
from rootless.cli.template.values import (
    Map,
    format_scalar,
    format_with,
    truth,
    type_name,
)

# Blanks that `pad` adds at most on each side.
_WIDEST: Final = 10_000


class Function(NamedTuple):
    """A function, the types of its arguments, and that of any further ones."""

    call: Callable[..., Any]
    kinds: tuple[type, ...]
    rest: type | None = None

    def invoke(self, name: str, arguments: list[Any]) -> Any:
        """Return the result; TemplateError where number or type of the arguments is wrong."""
        few = len(arguments) < len(self.kinds)
        if few or (len(arguments) > len(self.kinds) and self.rest is None):
            more = "" if self.rest is None else "at least "
            raise TemplateError(
                f"wrong number of args for {name}: want {more}{len(self.kinds)} "
                f"got {len(arguments)}"
            )
        kinds = self.kinds + (self.rest or object,) * (len(arguments) - len(self.kinds))
        for kind, argument in zip(kinds, arguments, strict=True):
            # Python's bool is an int, Go's is not.
            if not isinstance(argument, kind) or (kind is int and isinstance(argument, bool)):
                raise TemplateError(
                    f"wrong type for an argument of {name}: want {_GO_NAMES[kind]} "
                    f"got {type_name(argument)}"
                )
        return self.call(*arguments)


_GO_NAMES: Final = {str: "string", int: "int", list: "list"}


def _json(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _join(items: list[Any], separator: str) -> str:
    if not all(isinstance(item, str) for item in items):
        raise TemplateError("join wants a list of strings")
    return separator.join(items)


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _title(text: str) -> str:
    return re.sub(r"(?<!\w)\w", lambda match: match[0].title(), text)


def _pad(text: str, before: int, after: int) -> str:
    if max(before, after) > _WIDEST:
        raise TemplateError(f"pad adds at most {_WIDEST} blanks")
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    return text[: max(length, 0)]


def _length(value: Any) -> int:
    if isinstance(value, (str, list, tuple, Map)):
        return len(value)
    raise TemplateError(f"len of type {type_name(value)}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        match value:
            case Map() if isinstance(key, str):
                # The zero value of Go: all our maps but few hold strings.
                value = value.get(key, "")
            case dict() if isinstance(key, str):
                value = value.get(key)
            case dict():
                raise TemplateError(f"value has type {type_name(key)}; should be string")
            case list() | tuple() | str():
                if type(key) is not int:
                    raise TemplateError(f"cannot index {type_name(value)} with {type_name(key)}")
                if not 0 <= key < len(value):
                    raise TemplateError(f"error calling index: index out of range: {key}")
                value = ord(value[key]) if isinstance(value, str) else value[key]
            case _:
                raise TemplateError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list, tuple)):
        raise TemplateError(f"can't slice item of type {type_name(value)}")
    if len(bounds) > 2:
        raise TemplateError("slice takes at most two bounds")
    first = bounds[0] if bounds else 0
    last = bounds[1] if len(bounds) > 1 else len(value)
    if type(first) is not int or type(last) is not int or not 0 <= first <= last <= len(value):
        raise TemplateError(f"error calling slice: out of range: {first}:{last}")
    return value[first:last]


def _basic_kind(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str)):
        return type_name(value)
    raise TemplateError(f"non-comparable type {type_name(value)}")


def _equal(first: Any, second: Any, *others: Any) -> bool:
    """Tell whether the first equals any of the others, as Go's eq does."""
    for other in (second, *others):
        kinds = {_basic_kind(first), _basic_kind(other)}
        if len(kinds) > 1 and "nil" not in kinds:
            raise TemplateError("incompatible types for comparison")
    return first in (second, *others)


def _ordered(first: Any, second: Any) -> tuple[Any, Any]:
    kind = _basic_kind(first)
    if kind != _basic_kind(second):
        raise TemplateError("incompatible types for comparison")
    if kind in ("bool", "nil"):
        raise TemplateError(f"invalid type for comparison: {kind}")
    return first, second


def _less(first: Any, second: Any) -> bool:
    first, second = _ordered(first, second)
    return bool(first < second)


def _less_or_equal(first: Any, second: Any) -> bool:
    first, second = _ordered(first, second)
    return bool(first <= second)


def _print(*values: Any) -> str:
    """Return fmt.Sprint: a blank between two values of which neither is a string."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += format_with(value, format_scalar)
    return text


def _println(*values: Any) -> str:
    return " ".join(format_with(value, format_scalar) for value in values) + "\n"


def _missing(name: str) -> Callable[..., Any]:
    def fail() -> None:
        raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")

    return fail


FUNCTIONS: Final = {
    # Go's. What `and` and `or` do with arguments is execute's: they may not need them all.
    "and": Function(_missing("and"), ()),
    "or": Function(_missing("or"), ()),
    "not": Function(lambda value: not truth(value), (object,)),
    "len": Function(_length, (object,)),
    "index": Function(_index, (object,), object),
    "slice": Function(_slice, (object,), object),
    "print": Function(_print, (), object),
    "println": Function(_println, (), object),
    "printf": Function(sprintf, (str,), object),
    "eq": Function(_equal, (object, object), object),
    "ne": Function(lambda first, second: not _equal(first, second), (object, object)),
    "lt": Function(_less, (object, object)),
    "le": Function(_less_or_equal, (object, object)),
    "gt": Function(lambda first, second: _less(second, first), (object, object)),
    "ge": Function(lambda first, second: _less_or_equal(second, first), (object, object)),
    # Docker's.
    "json": Function(_json, (object,)),
    "join": Function(_join, (list, str)),
    "split": Function(_split, (str, str)),
    "title": Function(_title, (str,)),
    "lower": Function(str.lower, (str,)),
    "upper": Function(str.upper, (str,)),
    "pad": Function(_pad, (str, int, int)),
    "truncate": Function(_truncate, (str, int)),
}

_UNCHANGED: Final = Function(lambda value, *_: value, (object,), object)
HEADER_FUNCTIONS: Final = FUNCTIONS | dict.fromkeys(
    ("json", "join", "split", "title", "lower", "upper", "truncate"), _UNCHANGED
)
