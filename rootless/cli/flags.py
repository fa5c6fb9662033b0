"""Docker's other forms of options: ``--rm=true``, ``-ti=false``, ``-e=A=1``.

Owns a click.Command that understands them where options are looked for. Used by
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
    """A command whose flags may have a value, and whose short options may have a ``=``."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Return click's parser, which also knows a spelling of each flag that turns it off."""
        parser = super().make_parser(ctx)
        for flag in self._flags():
            opts = [_off(name) for name in flag.opts]
            parser.add_option(flag, opts, flag.name, action="store_const", const=False)
        return parser

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, those in Docker's other forms too."""
        try:
            return super().parse_args(ctx, list(self._plain(args, ctx.allow_interspersed_args)))
        except click.NoSuchOption as error:
            # Without the spellings that nobody types.
            typed = [name for name in error.possibilities or () if "\0" not in name]
            raise click.NoSuchOption(
                error.option_name, error.message, typed, error.ctx or ctx
            ) from None
        except click.UsageError as error:
            # click's parser does not always say which command's use is wrong.
            error.ctx = error.ctx or ctx
            raise

    def _flags(self) -> list[click.Option]:
        return [param for param in self.params if isinstance(param, click.Option) and param.is_flag]

    def _plain(self, args: list[str], interspersed: bool) -> Iterator[str]:
        flags = {name for flag in self._flags() for name in flag.opts}
        valued = {name for param in self.params for name in param.opts} - flags
        rest = iter(args)
        for word in rest:
            is_option = word.startswith("-") and word != "-"
            if word == "--" or not (is_option or interspersed):
                yield word
                break
            if is_option:
                spelled = _long if word.startswith("--") else _short
                yield from spelled(word, flags, valued)
                if _takes_next(word, valued):
                    yield from islice(rest, 1)
            else:
                yield word
        yield from rest


def _long(word: str, flags: set[str], valued: set[str]) -> list[str]:  # noqa: ARG001
    name, _, value = word.partition("=")
    return _switched(name, value) or [word] if name in flags else [word]


def _short(word: str, flags: set[str], valued: set[str]) -> list[str]:
    """Return an option, or several in one word, as click reads them."""
    for at in range(1, len(word)):
        name, rest = f"-{word[at]}", word[at + 1 :]
        # pflag's rule: a "=" with nothing after it is the value.
        has_value = rest.startswith("=") and rest != "="
        if name in valued:
            return [word[: at + 1] + rest[1:]] if has_value else [word]
        if name not in flags:
            break
        if has_value:
            before = [word[:at]] if at > 1 else []
            switched = _switched(name, rest[1:])
            return [*before, *switched] if switched else [word]
    return [word]


def _switched(name: str, value: str) -> list[str]:
    """Return what click takes for a flag that is on or off; nothing if that is no such value."""
    return [name] if value in _TRUE else [_off(name)] if value in _FALSE else []


def _off(name: str) -> str:
    # With a character that nobody types, in a form that click takes for one long name.
    return f"--\0{name}"


def _takes_next(word: str, valued: set[str]) -> bool:
    """Tell whether the value of an option is the next word: after --env, -e, -ite, not -eA=b."""
    if word.startswith("--"):
        return word in valued
    if "=" in word:
        return False
    return next((at for at, char in enumerate(word) if f"-{char}" in valued), 0) == len(word) - 1
