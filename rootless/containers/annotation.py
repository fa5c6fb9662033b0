"""What a config.json says of a container beyond the runtime specification, in its annotations.

Owns their names and form; ``spec`` computes what they hold. Pure, and small: read
by every command that looks at a container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

Spec = dict[str, Any]

# Our one annotation: what the specification has no field for, as JSON.
ANNOTATION: Final = "rl.container"
# What a mode begins with that names another container.
JOIN: Final = "container:"
# image-spec, conversion.md: where the image's StopSignal goes.
STOP_SIGNAL: Final = "org.opencontainers.image.stopSignal"


class Extra(NamedTuple):
    """What config.json's annotation keeps for us: the inputs that the rest was computed from.

    ``volumes`` maps targets to names, ``subpaths`` to what of a volume is mounted, if not all;
    ``filled_volumes`` are the targets whose volume takes the image's content when it is empty.
    ``binds`` are those whose
    source the user named on the host, ``given`` those whose source is given to
    the container's user (U). ``accounts`` are lines for files of the image, which
    name the user that --userns=keep-id brings along. ``ports`` are those to
    publish, as fields of networks.ports.Port.
    """

    image: str
    image_id: str
    layers: Sequence[str]
    request: Mapping[str, Any]
    volumes: Mapping[str, str]
    anonymous_volumes: Sequence[str]
    filled_volumes: Sequence[str]
    entrypoint: Sequence[str]
    command: Sequence[str]
    labels: Mapping[str, str]
    binds: Sequence[str] = ()
    given: Sequence[str] = ()
    accounts: Mapping[str, str] = {}
    healthcheck: Mapping[str, Any] | None = None
    ports: Sequence[Mapping[str, Any]] = ()
    exposed: Sequence[str] = ()
    subpaths: Mapping[str, str] = {}

    @property
    def joined(self) -> dict[str, str]:
        """Which containers' namespaces it has: their IDs by the types of these."""
        return joined(self.request["network"], self.request.get("namespaces", {}))


def joined(network: str, modes: Mapping[str, Any]) -> dict[str, str]:
    """Return the containers that modes name, by the types of the namespaces."""
    named = {"network": network, "user": modes.get("userns", "")}
    named |= {kind: modes.get(kind, "") for kind in ("pid", "ipc", "uts")}
    return {kind: name for kind, mode in named.items() if (name := named_in(mode))}


def named_in(mode: str) -> str:
    """Return the container that a mode names, "" if it is another mode."""
    return mode.removeprefix(JOIN) if mode.startswith(JOIN) else ""


def read_extra(spec: Spec) -> Extra:
    """Return what ``build`` put into the annotation."""
    return _parse(spec["annotations"][ANNOTATION])


@lru_cache(maxsize=4)  # whoever asks for one of a container's inputs asks for more of them
def _parse(annotation: str) -> Extra:
    return Extra(**json.loads(annotation))
