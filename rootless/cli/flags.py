"""Docker's other form of a flag: ``--rm=true``, ``-t=false``.

Owns a click.Command that understands it before its first argument. Used by
commands whose lines are written by scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import click

# Go's strconv.ParseBool.
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")


class FlagCommand(click.Command):
    """A command whose flags may have a value; the last one counts, as everywhere."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, which also knows a spelling of each flag that turns it off."""
        parser = super().make_parser(ctx)
        for flag in self._flags():
            opts = [_off(name) for name in flag.opts]
            parser.add_option(flag, opts, flag.name, action="store_const", const=False)
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, those in Docker's other form too."""
        return super().parse_args(ctx, list(self._plain(args)))

    def _flags(self) -> list[click.Option]:
        return [param for param in self.params if isinstance(param, click.Option) and param.is_flag]

    def _plain(self, args: list[str]) -> Iterator[str]:
        flags = {name for flag in self._flags() for name in flag.opts}
        valued = {name for param in self.params for name in param.opts} - flags
        rest = iter(args)
        for word in rest:
            name, _, value = word.partition("=")
            if name in flags and value in _TRUE:
                yield name
            elif name in flags and value in _FALSE:
                yield _off(name)
            else:
                yield word
            if word == "--" or not word.startswith("-"):
                break
            if _takes_next(word, valued):
                yield from islice(rest, 1)
        yield from rest


def _off(name: str) -> str:
    # With a character that nobody types, in a form that click takes for one long name.
    return f"--\0{name}"


def _takes_next(word: str, valued: set[str]) -> bool:
    """Tell whether the value of an option is the next word: after --env, -e, -ite, not -eA=b."""
    if word.startswith("--"):
        return word in valued
    return next((at for at, char in enumerate(word) if f"-{char}" in valued), 0) == len(word) - 1
