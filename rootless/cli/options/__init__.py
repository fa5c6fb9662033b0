"""The options of run and create, and of others that share them, a module for each theme.

Each module has ``options``, a decorator that adds them to a command, and ``chosen``, which
returns the fields of the Request that they mean. On the path where every import is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def together(*decorators: Decorator) -> Decorator:
    """Return one decorator for several options, which the help lists in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
