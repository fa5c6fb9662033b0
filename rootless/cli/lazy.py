"""A click group that knows its commands by name and help line, and imports only the one called.

Owns the table's form, the listing and the answer to an unknown name; never
says what the commands are (rootless.cli does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from rootless.errors import RlError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


# Docker's other names in each section.
_ALIASES: Final = {"list": "ls", "remove": "rm"}


class Entry(NamedTuple):
    """A command that is not imported yet; ``target`` is "module:attribute"."""

    target: str
    help: str


class Section(NamedTuple):
    """A group of commands under one name, `rl image …`."""

    help: str
    commands: Mapping[str, Entry]


class LazyGroup(click.Group):
    """Commands that are imported when called, and groups of them."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        sections: Mapping[str, Section] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._entries = entries
        self._sections = sections or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return all names, in the order of the help text."""
        return [*self._entries, *self._sections]

    def _called(self, name: str) -> str:
        """Return the name in our table of a command that is called ``name``."""
        return name if name in self._entries else _ALIASES.get(name, name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command."""
        if section := self._sections.get(cmd_name):
            return LazyGroup(section.commands, name=cmd_name, help=section.help)
        entry = self._entries.get(self._called(cmd_name))
        if entry is None:
            return None
        import importlib

        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of ``args``; RlError with a hint if there is none."""
        name = args[0]
        if (
            self._called(name) in self.list_commands(ctx)
            or ctx.resilient_parsing
            or name.startswith("-")
        ):
            return super().resolve_command(ctx, args)
        import difflib

        from rootless.cli.missing import instead_of, is_command

        path = ctx.command_path
        if is_command(name):
            asked = f"{path} {name}".removeprefix("rl ")
            other = instead_of(name)
            meanwhile = f": meanwhile '{other}' does it" if other else ""
            raise RlError(f"'{asked}' is not here yet{meanwhile} (see '{path} --help')")
        close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
        hint = f"did you mean '{path} {close[0]}'? See" if close else "see"
        raise RlError(f"'{name}' is not a command of {path} ({hint} '{path} --help')")

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self._entries.items()])
        if self._sections:
            with formatter.section("The same by what they work on"):
                formatter.write_dl([(name, part.help) for name, part in self._sections.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names that start with ``incomplete``, then the options."""
        from click.shell_completion import CompletionItem

        helps = [(name, entry.help) for name, entry in self._entries.items()]
        helps += [(name, section.help) for name, section in self._sections.items()]
        names = [
            CompletionItem(name, help=line) for name, line in helps if name.startswith(incomplete)
        ]
        # The level above click.Group's, which would import every command.
        return names + super(click.Group, self).shell_complete(ctx, incomplete)
