"""The global options of `rl`, as every command gets them.

Owns nothing but their values; made by rootless.cli, read by the commands
through ``pass_settings``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path


class Settings:
    """What stands before the command's name: `rl --root DIR --debug COMMAND`."""

    def __init__(self, hand_over: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        self.chosen_root: str | None = None
        self.debug = False
        self.hand_over = hand_over
        """Whom a command gives what it has read, instead of doing it."""

    @property
    def root(self) -> Path:
        """The directory of images and containers, made if need be; RlError if it cannot be."""
        from rootless.paths import state_root

        return state_root(self.chosen_root)


pass_settings = click.make_pass_decorator(Settings, ensure=True)
