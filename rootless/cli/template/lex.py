"""The text of a template cut into pieces: text outside of actions, tokens within, constants read.

Owns the spelling of things, and the error that every part of the engine raises.
Called by parse.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from rootless.errors import RlError

_LARGEST_INT: Final = 1 << 63

_OPEN: Final = re.compile(r"\{\{(-(?=[ \t\r\n]))?")
_COMMENT: Final = re.compile(r"[ \t\r\n]*/\*.*?\*/(?:([ \t\r\n]+-)|[ \t\r\n]*)\}\}", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""
      (?P<end> (?:[ \t\r\n]+(?P<trim>-))? \}\} )
    | (?P<space> [ \t\r\n]+ )
    | (?P<string> "(?:[^"\\\n]|\\.)*" )
    | (?P<raw> `[^`]*` )
    | (?P<char> '(?:[^'\\\n]|\\[^\n][0-9a-fA-F]*)' )
    | (?P<number> [+-]?(?: 0[xX][0-9a-fA-F_]+ | 0[oO][0-7_]+ | 0[bB][01_]+
                         | (?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? ) (?!\w) )
    | (?P<variable> \$\w* )
    | (?P<field> \.[^\W\d]\w* )
    | (?P<word> [^\W\d]\w* )
    | (?P<dot> \. )
    | (?P<sign> := | [=|(),] )
    """,
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    r"""\\(?:([abfnrtv\\'"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)"""
)
_SIMPLE_ESCAPES: Final = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))


class TemplateError(RlError):
    """The template is not one, or does not fit the value; worded as Docker does."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"template parsing error: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:
        return TemplateError, (str(self).removeprefix("template parsing error: "),)


class Token(NamedTuple):
    """A word of the language; ``kind`` is the name of its group in _TOKEN."""

    kind: str
    text: str


# A piece of the source: its text, or the tokens between {{ and }}.
Piece = str | list[Token]


def split(source: str) -> list[Piece]:
    """Return the pieces in order, trimmed as their markers say and without comments."""
    pieces: list[Piece] = []
    position, trim = 0, False
    while opened := _OPEN.search(source, position):
        text = source[position : opened.start()]
        text = text.lstrip(" \t\r\n") if trim else text
        pieces.append(text.rstrip(" \t\r\n") if opened[1] else text)
        if comment := _COMMENT.match(source, opened.end()):
            position, trim = comment.end(), bool(comment[1])
            continue
        tokens, position, trim = _tokens(source, opened.end())
        pieces.append(tokens)
    text = source[position:]
    pieces.append(text.lstrip(" \t\r\n") if trim else text)
    return pieces


def _tokens(source: str, position: int) -> tuple[list[Token], int, bool]:
    """Return the tokens of an action, where it ends, and whether it trims what follows."""
    found: list[Token] = []
    while match := _TOKEN.match(source, position):
        position = match.end()
        if match["end"]:
            return found, position, bool(match["trim"])
        assert match.lastgroup is not None
        found.append(Token(match.lastgroup, match[0]))
    if position >= len(source):
        raise TemplateError("unclosed action (}} is missing)")
    if source[position] in "\"`'":
        raise TemplateError(f"unterminated string at {source[position : position + 20]!r}")
    raise TemplateError(f"unexpected {source[position : position + 20]!r} in an action")


def constant(token: Token) -> str | int | float:
    """Return what a string, character or number token stands for."""
    text = token.text
    match token.kind:
        case "raw":
            return text[1:-1]
        case "string":
            return _unquoted(text)
        case "char":
            char = _unquoted(text)
            if len(char) != 1:
                raise TemplateError(f"malformed character constant: {text}")
            return ord(char)
    return _number(text)


def _number(text: str) -> int | float:
    digits = text.lstrip("+-").replace("_", "")
    try:
        if digits.isdecimal():
            # A leading zero means octal, as in C.
            number = int(text, 8 if digits.startswith("0") else 10)
        elif digits[:2].lower() in ("0x", "0o", "0b"):
            number = int(text, 0)
        else:
            return _finite(float(text))
    except ValueError:
        raise TemplateError(f"bad number syntax: {text}") from None
    if not -_LARGEST_INT <= number < _LARGEST_INT:
        raise TemplateError(f"integer overflow: {text}")
    return number


def _finite(number: float) -> float:
    if number in (float("inf"), float("-inf")):
        raise ValueError("too large")
    return number


def _unquoted(literal: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        simple, octal = match[1], match[3]
        if simple:
            return _SIMPLE_ESCAPES[simple]
        digits = match[2] or octal or match[4] or match[5]
        if not digits or int(digits, 8 if octal else 16) > 0x10FFFF:
            raise TemplateError(f"invalid escape in {literal}")
        return chr(int(digits, 8 if octal else 16))

    return _ESCAPE.sub(replacement, literal[1:-1])
