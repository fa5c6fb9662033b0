"""The errors that reach a person: one line each, saying what failed, why, and what to do.

Owns the exception types shared by all parts and their exit codes (docker's).
Never prints: the command line adds the ``rl: `` prefix and exits.
"""

from __future__ import annotations


class RlError(Exception):
    """A failure of ours, worded for the person who typed the command.

    ``exit_code`` is what the command leaves with; 125 is docker's for a failure
    of its own, 126 and 127 are those of the container's command.
    """

    exit_code = 125

    def __init__(self, message: str, exit_code: int = exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ImageNotFound(RlError):
    """No local image bears the name, or no ID starts with it."""


class ContainerDamaged(RlError):
    """The state of a container on disk cannot be read."""


class ContainerNotFound(RlError):
    """No container bears the name, or no ID starts with it."""
