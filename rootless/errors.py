"""The errors that reach a person: one line each, saying what failed, why, and what to do.

Owns the exception types shared by all parts and their exit codes (docker's).
Never prints: the command line adds the ``rl: `` prefix and exits.
"""

from __future__ import annotations


class RlError(Exception):
    """A failure of ours, worded for the person who typed the command."""

    exit_code = 125


class ImageNotFound(RlError):
    """No local image bears the name, or no ID starts with it."""


class ContainerNotFound(RlError):
    """No container bears the name, or no ID starts with it."""


class CommandNotExecutable(RlError):
    """The container's command exists and cannot be executed."""

    exit_code = 126


class CommandNotFound(RlError):
    """The container's command does not exist."""

    exit_code = 127
