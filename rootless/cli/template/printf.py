"""Go's fmt.Sprintf, for the values that templates have. Pure; called by functions."""

from __future__ import annotations

import re
from typing import Any, Final

from rootless.cli.template.lex import TemplateError
from rootless.cli.template.values import format_scalar, format_with, quote, type_name

# Go ignores what is wider; a template that asks for it gets an error.
_WIDEST: Final = 10_000

_VERB: Final = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\d+|\*)?(?:\.(?P<precision>\d+|\*)?)?(?P<verb>.)?", re.DOTALL
)


class _Arguments:
    """What is left of the values to be printed."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = list(values)

    def number(self, text: str | None) -> int | None:
        """Return a width or precision; ``*`` takes the next value."""
        if text is None:
            return None
        value = self.values.pop(0) if text == "*" and self.values else text
        if not isinstance(value, (int, str)) or not str(value).isdecimal() or int(value) > _WIDEST:
            raise TemplateError(f"printf: bad width or precision (at most {_WIDEST})")
        return int(value)


def sprintf(template: str, *values: Any) -> str:
    """Return ``template`` with its verbs filled in; mistakes show in the text, as in Go."""
    arguments = _Arguments(values)

    def replacement(match: re.Match[str]) -> str:
        width = arguments.number(match["width"])
        precision = arguments.number(match["precision"])
        if precision is None and "." in match[0][:-1]:
            precision = 0
        verb = match["verb"]
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        if not arguments.values:
            return f"%!{verb}(MISSING)"
        text = _formatted(arguments.values.pop(0), verb, match["flags"], precision)
        return _padded(text, match["flags"], width or 0)

    text = _VERB.sub(replacement, template)
    if arguments.values:
        extra = ", ".join(
            f"{type_name(value)}={format_with(value, format_scalar)}" for value in arguments.values
        )
        text += f"%!(EXTRA {extra})"
    return text


def _formatted(value: Any, verb: str, flags: str, precision: int | None) -> str:
    if verb == "T":
        return type_name(value)

    def scalar(item: Any) -> str:
        return _scalar(item, verb, flags, precision)

    return format_with(value, scalar)


def _scalar(value: Any, verb: str, flags: str, precision: int | None) -> str:
    match value, verb:
        case _, "v":
            return quote(value) if "#" in flags and isinstance(value, str) else format_scalar(value)
        case str(), "s":
            return value[:precision]
        case str(), "q":
            return quote(value[:precision])
        case str(), "x":
            return value.encode().hex()
        case str(), "X":
            return value.encode().hex().upper()
        case bool(), "t":
            return format_scalar(value)
        case bool(), _:
            pass
        case int(), "d":
            return f"{value:+d}" if "+" in flags else str(value)
        case int(), "x" | "X" | "o" | "b":
            # Go's prefix for octal is C's.
            text = format(value, f"#{verb}" if "#" in flags else verb)
            return text.replace("0o", "0")
        case int(), "c" if 0 <= value < 0x110000:
            return chr(value)
        case int(), "q" if 0 <= value < 0x110000:
            return f"'{chr(value)}'"
        case int(), "U":
            return f"U+{value:04X}"
        case float(), "f" | "F" | "e" | "E" | "g" | "G":
            sign = "+" if "+" in flags else ""
            if verb in "gG" and precision is None:
                text = sign * (value >= 0) + format_scalar(value)
                return text.upper() if verb == "G" else text
            return format(value, f"{sign}.{6 if precision is None else precision}{verb}")
    shown = format_scalar(value)
    return f"%!{verb}({shown if value is None else f'{type_name(value)}={shown}'})"


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        return text.zfill(width)
    return text.rjust(width)
