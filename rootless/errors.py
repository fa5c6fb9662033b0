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


class LayersMissing(ImageNotFound):
    """An image is here, put by another program, of which not every layer is unpacked yet."""


class ContainerDamaged(RlError):
    """The state of the container with this ID cannot be read."""

    def __init__(self, container_id: str, reason: object) -> None:
        super().__init__(
            f"the state of the container {container_id[:12]} is damaged: {reason} "
            f"(rl rm --force {container_id[:12]} removes it)"
        )
        self.container_id = container_id


class ContainerNotFound(RlError):
    """No container bears the name, or no ID starts with it."""


class VolumeNotFound(RlError):
    """No volume bears the name."""


class NetworkNotFound(RlError):
    """No user network bears the name, or no ID starts with it."""
